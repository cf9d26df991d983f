"""The injected containers: which of them a Pod gets, and what they are told."""

import json
from typing import Any

import pytest

from tests import reviews

Object = dict[str, Any]


def ours(obj: Object) -> dict[str, Object]:
    """The injected containers by their names, in their order."""
    spec = reviews.injected(obj)["spec"]
    return {c["name"]: c for c in [*spec["initContainers"], *spec["containers"]] if c["name"].startswith("litestream-")}


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
