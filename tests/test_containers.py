"""The injected containers: which of them a Pod gets, and what they are told."""

import json
from typing import Any

import pytest

from injector import litestream
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
        {"image": "litestream/litestream:0.5.8"},
        {"image": "litestream/litestream:0.5.17-scratch"},
    ],
    ids=lambda annotations: next(iter(annotations.values())),
)
def test_nothing_waits_where_it_is_not_wanted_or_can_t_be_told(annotations: dict[str, str]) -> None:
    assert FIRST_SYNC not in ours(reviews.pod(path="/a/a.db", **annotations))


def test_waiting_for_the_first_sync_needs_no_credentials() -> None:
    names = {entry["name"] for entry in ours(reviews.pod())[FIRST_SYNC]["env"]}
    assert not {name for name in names if name.startswith("AWS_")}


def test_a_socket_and_a_binary_have_one_name_in_config_probes_and_scripts() -> None:
    containers = ours(reviews.pod(path="/a/a.db"))
    config = json.loads(containers["litestream-hook-init"]["env"][0]["value"])
    assert config["socket"]["path"] == litestream.SOCKET
    stop = containers["litestream-hook-replicate"]["lifecycle"]["preStop"]["exec"]["command"][-1]
    for script in (stop, containers[FIRST_SYNC]["command"][-1]):
        assert f"{litestream.BINARY} sync" in script
        assert f"-socket {litestream.SOCKET}" in script


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
