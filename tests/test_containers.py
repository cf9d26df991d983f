"""The injected containers: which of them a Pod gets, and what they are told."""

import json
from typing import Any

import pytest

from injector.pod import litestream
from tests import reviews

Object = dict[str, Any]
FIRST_SYNC = "litestream-hook-first-sync"


def ours(obj: Object) -> dict[str, Object]:
    """The injected containers by their names, in their order."""
    spec = reviews.injected(obj)["spec"]
    return {c["name"]: c for c in [*spec["initContainers"], *spec["containers"]] if c["name"].startswith("litestream-")}


def on_claim(**annotations: str) -> Object:
    """A Pod with one database on a PersistentVolumeClaim and one that lives and dies with the Pod."""
    container = {"name": "app", "image": "a:1", "volumeMounts": [{"name": "data", "mountPath": "/claim"}]}
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    return reviews.pod({"containers": [container], "volumes": volumes}, None, **annotations)


def databases(container: Object) -> list[str]:
    values: list[str] = [entry["value"] for entry in container["env"] if entry["name"] == "LITESTREAM_DATABASES"]
    return values[0].split("\n")


def test_the_application_waits_until_restored_databases_are_replicated_again() -> None:
    found = ours(reviews.pod(path="/a/a.db,/b/b.db"))
    assert list(found)[-2:] == ["litestream-hook-replicate", FIRST_SYNC]
    assert databases(found[FIRST_SYNC]) == ["/a/a.db", "/b/b.db"]


def test_nothing_waits_for_a_database_that_outlives_its_pod() -> None:
    assert databases(ours(on_claim(path="/claim/a.db,/b/b.db"))[FIRST_SYNC]) == ["/b/b.db"]
    assert FIRST_SYNC not in ours(on_claim(path="/claim/a.db"))


@pytest.mark.parametrize(
    "annotations",
    [
        {"first_sync": "background"},
        {"sidecar": "container"},
        {"image": "litestream/litestream:0.3.13"},
        {"image": "litestream/litestream:0.5.5"},
        {"image": "litestream/litestream:0.5.17-scratch"},
    ],
    ids=lambda annotations: next(iter(annotations.values())),
)
def test_nothing_waits_where_it_is_not_wanted_or_can_t_be_told(annotations: dict[str, str]) -> None:
    assert FIRST_SYNC not in ours(reviews.pod(path="/a/a.db", **annotations))


def test_what_is_restored_is_noted_before_the_restore() -> None:
    """The container that waits compares with it."""
    found = ours(reviews.pod(path="/a/a.db,/b/b.db"))
    assert databases(found["litestream-hook-check"]) == ["/a/a.db", "/b/b.db"]
    assert list(found).index("litestream-hook-check") < list(found).index("litestream-hook-restore-0")
    assert "litestream-hook-check" not in ours(reviews.pod(path="/a/a.db", first_sync="background"))


def test_no_script_makes_litestream_sync() -> None:
    """A sync that a client asks for ends the transaction that keeps the WAL from being reset (0.5.8 to 0.5.17)."""
    spec = json.dumps(reviews.injected(reviews.pod(path="/a/a.db"))["spec"])
    assert "litestream ltx" in spec
    assert "litestream sync" not in spec


def test_a_socket_and_a_binary_have_one_name_in_config_probes_and_scripts() -> None:
    containers = ours(reviews.pod(path="/a/a.db"))
    config = json.loads(containers["litestream-hook-init"]["env"][0]["value"])
    assert config["socket"]["path"] == litestream.SOCKET
    stop = containers["litestream-hook-replicate"]["lifecycle"]["preStop"]["exec"]["command"][-1]
    assert f"{litestream.BINARY} list -timeout 2 -socket {litestream.SOCKET})" in stop
    wait = containers[FIRST_SYNC]["command"][-1]
    assert f"config={litestream.CONFIG}\n" in wait
    assert f"{litestream.BINARY} ltx" in wait


@pytest.mark.parametrize(("grace", "seconds"), [(None, "60"), (0, "30"), (600, "630")])
def test_litestream_may_look_for_new_databases_as_long_as_its_final_sync_may_take(
    grace: int | None, seconds: str
) -> None:
    sidecar = ours(reviews.pod({"terminationGracePeriodSeconds": grace}))["litestream-hook-replicate"]
    assert {"name": "LITESTREAM_SECONDS", "value": seconds} in sidecar["env"]


def test_an_ordinary_sidecar_begins_to_look_when_the_application_may_no_longer_write() -> None:
    sidecar = ours(reviews.pod({"terminationGracePeriodSeconds": 7}, sidecar="container"))["litestream-hook-replicate"]
    assert {"name": "LITESTREAM_DRAIN_SECONDS", "value": "7"} in sidecar["env"]
    assert {"name": "LITESTREAM_SECONDS", "value": "30"} in sidecar["env"]


def test_small_containers_have_a_cpu_limit_where_one_is_asked_for_as_a_quota_may_want_it() -> None:
    found = ours(reviews.pod(cpu_limit="5m", cpu_request="1m"))
    assert {container["resources"]["limits"]["cpu"] for container in found.values()} == {"5m"}
    assert found["litestream-hook-init"]["resources"]["requests"]["cpu"] == "5m"
    assert "cpu" not in ours(reviews.pod())["litestream-hook-init"]["resources"]["limits"]


def test_a_container_beside_the_sidecar_does_not_double_what_the_pod_reserves() -> None:
    found = ours(reviews.pod(memory_request="2Gi", memory_limit="4Gi"))
    assert found[FIRST_SYNC]["resources"]["requests"]["memory"] == "32Mi"


@pytest.mark.parametrize(
    ("annotations", "warning"),
    [
        ({"first_sync": "wait", "image": "litestream/litestream:0.3.13"}, "first-sync has no effect here"),
        ({"first_sync": "wait", "image": "litestream/litestream:0.5.17-scratch"}, "first-sync has no effect here"),
        ({"first_sync": "wait", "sidecar": "container"}, "first-sync has no effect here"),
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
        {"image": "example.com/litestream:mine", "first_sync": "background"},
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
