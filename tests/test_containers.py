"""The injected containers: which of them a Pod gets, and what they are told."""

import json
from typing import Any

import pytest

from injector.pod import litestream, volumes
from tests import reviews

Object = dict[str, Any]


def ours(obj: Object) -> dict[str, Object]:
    """The injected containers by their names, in their order."""
    spec = reviews.injected(obj)["spec"]
    return {c["name"]: c for c in [*spec["initContainers"], *spec["containers"]] if c["name"].startswith("litestream-")}


def on_claim(**annotations: str) -> Object:
    """A Pod with one database on a PersistentVolumeClaim and one that lives and dies with the Pod."""
    container = {"name": "app", "image": "a:1", "volumeMounts": [{"name": "data", "mountPath": "/claim"}]}
    claims = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    return reviews.pod({"containers": [container], "volumes": claims}, None, **annotations)


def variable(container: Object, name: str) -> str | None:
    return next((entry["value"] for entry in container["env"] if entry["name"] == name), None)


def uploads(container: Object) -> str | None:
    """From how many bytes on a restore uploads the database before the application starts."""
    command = container.get("command", [])
    return command[-1] if "restore" in command else None


def test_three_kinds_of_container_are_injected_and_no_more() -> None:
    names = list(ours(on_claim(path="/claim/a.db,/b/b.db")))
    restores = ["litestream-hook-restore-0", "litestream-hook-restore-1"]
    assert names == ["litestream-hook-init", *restores, "litestream-hook-replicate"]


@pytest.mark.parametrize(("first_sync", "least"), [("auto", str(16 * 2**20)), ("wait", "0"), ("background", None)])
def test_a_restored_database_is_uploaded_before_the_application_starts(first_sync: str, least: str | None) -> None:
    found = ours(reviews.pod(path="/a/a.db,/b/b.db", first_sync=first_sync))
    for number in (0, 1):
        restore = found[f"litestream-hook-restore-{number}"]
        assert uploads(restore) == least
        if least is not None:
            alone = f"/etc/litestream/database-{number}.yml"
            assert restore["command"] == ["/bin/sh", "/etc/litestream/sidecar.sh", "restore", alone, least]


def test_the_last_restore_of_a_database_uploads_it() -> None:
    found = ours(reviews.pod(path="/a/a.db", restore_from="old/{database}"))
    assert uploads(found["litestream-hook-restore-0"]) is None
    assert uploads(found["litestream-hook-restore-from-0"]) is not None


def test_a_database_that_outlives_its_pod_is_not_uploaded_anew() -> None:
    found = ours(on_claim(path="/claim/a.db,/b/b.db"))
    assert [uploads(found[f"litestream-hook-restore-{number}"]) for number in (0, 1)] == [None, str(16 * 2**20)]


@pytest.mark.parametrize(
    "annotations",
    [
        {"sidecar": "container"},
        {"image": "litestream/litestream:0.3.13"},
        {"image": "litestream/litestream:0.5.5"},
        {"image": "litestream/litestream:0.5.17-scratch"},
    ],
    ids=lambda annotations: next(iter(annotations.values())),
)
def test_nothing_is_uploaded_first_where_no_shell_can_do_it(annotations: dict[str, str]) -> None:
    assert uploads(ours(reviews.pod(path="/a/a.db", **annotations))["litestream-hook-restore-0"]) is None


def test_init_asks_every_replica_and_checks_what_outlives_the_pod() -> None:
    checks = ours(on_claim(path="/claim/a.db,/b/b.db"))["litestream-hook-init"]
    assert variable(checks, "LITESTREAM_LOCAL_DATABASE") == "ask"
    assert variable(checks, "LITESTREAM_DATABASES") == "/claim/a.db\n/b/b.db"
    assert "shows no sign of having been replicated" in checks["command"][-1]
    assert any(entry["name"] == "AWS_SECRET_ACCESS_KEY" for entry in checks["env"])
    plain = ours(reviews.pod(path="/a/a.db"))["litestream-hook-init"]
    assert "shows no sign of having been replicated" not in plain["command"][-1]
    for init in (plain, checks):
        assert variable(init, "LITESTREAM_BUCKET") == "litestream at https://s3.us-east-1.amazonaws.com"
    for annotations in ({"image": "litestream/litestream:0.3.13"}, {"image": "litestream/litestream:0.5.17-scratch"}):
        init = ours(reviews.pod(path="/a/a.db", **annotations))["litestream-hook-init"]
        assert variable(init, "LITESTREAM_BUCKET") is None
        assert not any(entry["name"].startswith("AWS_") for entry in init["env"])


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("litestream/litestream:0.5.17", "litestream/litestream:0.5.17"),
        ("docker.io/litestream/litestream:0.5.17-scratch", "docker.io/library/busybox:1.37"),
        ("litestream/litestream:0.5.17-scratch", "docker.io/library/busybox:1.37"),
        ("litestream/litestream:0.3.13", "docker.io/library/busybox:1.37"),
    ],
)
def test_init_needs_no_second_image_where_litestreams_own_has_a_shell(image: str, expected: str) -> None:
    assert ours(reviews.pod(image=image))["litestream-hook-init"]["image"] == expected


def test_a_supervised_sidecar_is_asked_by_its_own_script() -> None:
    sidecar = ours(reviews.pod())["litestream-hook-replicate"]
    script = ["/bin/sh", "/etc/litestream/sidecar.sh"]
    assert sidecar["command"] == [*script, "run"]
    assert sidecar["lifecycle"] == {"postStart": {"exec": {"command": [*script, "started"]}}}
    assert sidecar["livenessProbe"]["exec"]["command"] == [*script, "alive"]
    assert sidecar["readinessProbe"]["exec"]["command"] == [*script, "ready"]
    assert "startupProbe" not in sidecar


def test_an_ordinary_sidecar_sleeps_while_the_application_may_write() -> None:
    sidecar = ours(reviews.pod({"terminationGracePeriodSeconds": 7}, sidecar="container"))["litestream-hook-replicate"]
    assert sidecar["lifecycle"]["preStop"] == {"sleep": {"seconds": 7}}


@pytest.mark.parametrize("image", ["litestream/litestream:0.3.13", "litestream/litestream:0.5.17-scratch"])
def test_a_sidecar_without_a_shell_sleeps_until_litestream_has_seen_every_database(image: str) -> None:
    sidecar = ours(reviews.pod(image=image))["litestream-hook-replicate"]
    assert sidecar["lifecycle"] == {"preStop": {"sleep": {"seconds": 2}}}
    assert "command" not in sidecar


def test_no_script_makes_litestream_sync() -> None:
    """A sync that a client asks for ends the transaction that keeps the WAL from being reset (0.5.8 to 0.5.17)."""
    spec = json.dumps(reviews.injected(reviews.pod(path="/a/a.db"))["spec"])
    assert "replicate -config" in spec
    assert "litestream sync" not in spec


def test_a_socket_and_a_binary_have_one_name_in_config_and_scripts() -> None:
    init = ours(on_claim(path="/claim/a.db"))["litestream-hook-init"]
    assert json.loads(init["env"][0]["value"])["socket"]["path"] == litestream.SOCKET
    script = variable(init, "LITESTREAM_SIDECAR_SCRIPT") or ""
    assert f"c={volumes.CONFIG_DIRECTORY}\n" in script
    assert f"l={litestream.BINARY}\n" in script
    assert "$c/litestream.sock" in script
    assert f"config={litestream.CONFIG.rpartition('/')[0]}\n" in init["command"][-1]
    assert f"litestream={litestream.BINARY}\n" in init["command"][-1]


def test_each_line_of_the_config_is_what_a_config_of_one_database_is_made_of() -> None:
    text = ours(reviews.pod(path="/a/a.db,/b/b.db", metrics_port="9090"))["litestream-hook-init"]["env"][0]["value"]
    head, listening, begin, *each, end = text.split("\n")
    assert [json.loads(line.removesuffix(","))["path"] for line in each] == ["/a/a.db", "/b/b.db"]
    alone = json.loads(head + begin + each[0].removesuffix(",") + end)
    whole = json.loads(text)
    assert whole.pop("addr") == ":9090"
    assert whole.pop("socket")["path"] in listening
    assert {**whole, "dbs": whole["dbs"][:1]} == alone


def test_metrics_and_with_them_pprof_are_served_only_where_they_are_asked_for() -> None:
    for asked, served in (({}, False), ({"metrics_port": "9090"}, True)):
        found = ours(reviews.pod(**asked))
        assert ("addr" in json.loads(found["litestream-hook-init"]["env"][0]["value"])) == served
        assert any(item.get("ports") for item in found.values()) == served


def test_every_injected_container_follows_the_annotations_as_limit_ranges_judge_each() -> None:
    asked = {"cpu_request": "50m", "cpu_limit": "50m", "memory_request": "64Mi", "memory_limit": "64Mi"}
    amounts = {"cpu": "50m", "memory": "64Mi"}
    for container in ours(on_claim(path="/claim/a.db,/b/b.db", **asked)).values():
        assert container["resources"] == {"requests": amounts, "limits": amounts}
    assert "cpu" not in ours(reviews.pod())["litestream-hook-init"]["resources"]["limits"]


@pytest.mark.parametrize(
    ("annotations", "warning"),
    [
        ({"first_sync": "wait", "image": "litestream/litestream:0.3.13"}, "first-sync has no effect here"),
        ({"first_sync": "wait", "image": "litestream/litestream:0.5.17-scratch"}, "first-sync has no effect here"),
        ({"first_sync": "wait", "sidecar": "container"}, "first-sync has no effect here"),
        ({"image": "litestream/litestream:0.5.17-scratch"}, "nothing starts Litestream again at once"),
        ({"image": "litestream/litestream:0.3.13"}, "nothing starts Litestream again at once"),
        ({"image": "example.com/litestream:mine"}, "the tag does not say whether the image has a shell"),
        ({"image": "litestream/litestream@sha256:" + "0" * 64}, "the tag does not say whether the image has a shell"),
    ],
)
def test_what_an_image_can_t_do_or_does_not_tell_is_warned_of(annotations: dict[str, str], warning: str) -> None:
    assert warning in reviews.warned(reviews.pod(**annotations))


@pytest.mark.parametrize(
    "annotations",
    [
        {},
        {"first_sync": "wait"},
        {"image": "litestream/litestream:v0.5.17"},
        {"image": "litestream/litestream:0.5"},
    ],
)
def test_what_an_image_can_do_is_not_warned_of(annotations: dict[str, str]) -> None:
    assert "shell" not in reviews.warned(reviews.pod(**annotations))


@pytest.mark.parametrize("image", ["litestream/litestream:0.5.17", "litestream/litestream:0.3.13"])
@pytest.mark.parametrize(
    ("sync", "monitor"), [("200ms", "200ms"), ("999ms", "999ms"), ("1s", None), ("1000ms", None), ("10s", None)]
)
def test_a_sync_interval_below_a_second_has_an_effect(image: str, sync: str, monitor: str | None) -> None:
    """Litestream sends only what it has seen, and looks once a second if nothing else is said."""
    containers = ours(reviews.pod(sync_interval=sync, image=image))
    (database,) = json.loads(containers["litestream-hook-init"]["env"][0]["value"])["dbs"]
    assert database.get("monitor-interval") == monitor
    assert database["replicas"][0]["sync-interval"] == sync


TOKEN = {
    "name": "kube-api-access-x",
    "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
    "readOnly": True,
}


def with_token(**annotations: str) -> Object:
    """A Pod as the ServiceAccount admission leaves it before the first call."""
    container = {"name": "app", "image": "a:1", "volumeMounts": [TOKEN]}
    sources = [{"name": TOKEN["name"], "projected": {"sources": []}}]
    return reviews.pod({"containers": [container], "volumes": sources}, None, path="/data/app.db", **annotations)


@pytest.mark.parametrize("annotations", [{}, {"auth": "ambient"}, {"restore": "if-exists", "sidecar": "container"}])
def test_an_empty_directory_keeps_the_api_servers_token_out_of_each_injected_container(annotations: Any) -> None:
    obj = with_token(**annotations)
    injected = ours(obj)
    assert len(injected) == 3
    for container in injected.values():
        (mount,) = (each for each in container["volumeMounts"] if each["mountPath"] == TOKEN["mountPath"])
        assert mount == {**TOKEN, "name": volumes.CONFIG_VOLUME, "subPath": "no-token"}
    once = reviews.injected(obj)
    assert reviews.injected(once) == once
    assert once["spec"]["containers"][0]["volumeMounts"][0] == TOKEN


def test_where_the_pod_has_no_token_nothing_hides_it() -> None:
    for container in ours(reviews.pod()).values():
        assert TOKEN["mountPath"] not in [mount["mountPath"] for mount in container["volumeMounts"]]
