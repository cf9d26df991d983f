"""The volumes of ours: nobody has to keep what is in them."""

from __future__ import annotations

from typing import Any

import pytest

from tests import reviews
from tests.test_storage import container, mount, pod

Object = dict[str, Any]
EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
EXCLUDE = "backup.velero.io/backup-volumes-excludes"


def blocking(obj: Object) -> list[str]:
    """Volumes for which the cluster autoscaler keeps a Pod's node (its utils/drain, HasBlockingLocalStorage).

    Before 1.27 it counted those in memory as well.
    """
    safe = set(obj["metadata"]["annotations"].get(EVICT, "").split(","))
    local = [each["name"] for each in obj["spec"]["volumes"] if "emptyDir" in each or "hostPath" in each]
    return [name for name in local if name not in safe]


def test_no_volume_of_ours_keeps_the_autoscaler_from_removing_a_node_nor_gets_into_a_backup() -> None:
    for obj in (
        reviews.pod(path="/a/a.db,/b/b.db"),
        reviews.pod(ca="configmap/own-ca"),
        pod(container(mount("/data"))),
        pod(container(mount("/data")), path="/data/a.db,/b/b.db"),
    ):
        stored = reviews.injected(obj)
        assert blocking(stored) == []
        excluded = stored["metadata"]["annotations"][EXCLUDE].split(",")
        assert excluded == [each["name"] for each in stored["spec"]["volumes"] if "emptyDir" in each]


def test_the_applications_own_local_volume_still_keeps_its_node() -> None:
    stored = reviews.injected(pod(container(mount("/data")), sources={"data": {"emptyDir": {}}}))
    assert blocking(stored) == ["data"]
    assert "data" not in stored["metadata"]["annotations"][EXCLUDE].split(",")


@pytest.mark.parametrize("written", ["tmp,cache", "tmp, cache", "litestream-hook-storage", ""])
@pytest.mark.parametrize("key", [EVICT, EXCLUDE])
def test_what_a_pod_says_of_its_volumes_stays_and_is_said_once(key: str, written: str) -> None:
    obj = reviews.pod({}, {"annotations": {key: written}})
    stored = reviews.injected(obj)
    text = stored["metadata"]["annotations"][key]
    assert text.startswith(written)
    added = ["litestream-hook-config", "litestream-hook-storage"]
    assert sorted(name for name in text.split(",") if name.startswith("litestream-hook-")) == added
    assert "" not in text.split(",")
    assert reviews.injected(stored) == stored


def test_whoever_forbids_an_eviction_is_not_contradicted() -> None:
    forbidden = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
    stored = reviews.injected(reviews.pod({}, {"annotations": forbidden}))
    assert forbidden.items() <= stored["metadata"]["annotations"].items()
