"""Resources of a Pod as a whole that Litestream does not fit into are told, with the sum to write."""

import copy
from typing import Any

import pytest

from tests import reviews
from tests.test_target import fields, pod

Object = dict[str, Any]


def within(whole: Object, *, app: Object | None = None, init: Object | None = None, **annotations: str) -> Object:
    """A Pod with resources as a whole, whose application and init container have these."""
    obj = pod({"runAsUser": 1000}, user=None, **annotations)
    obj["spec"] |= {"resources": whole, "initContainers": [{"name": "setup", "image": "app:1", "resources": init}]}
    obj["spec"]["containers"][0]["resources"] = app
    return obj


SMALL: Object = {"requests": {"cpu": "90m"}}
TOO_SMALL: list[tuple[Object, dict[str, str]]] = [
    (within({"requests": {"memory": "64Mi"}, "limits": {"memory": "64Mi"}}, app=SMALL), {"limits.memory": "256Mi"}),
    (within({"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}}, app=SMALL), {"requests.cpu": "110m"}),
    (within({"requests": {"memory": "60Mi"}, "limits": {"memory": "1Gi"}}, app=SMALL), {"requests.memory": "64Mi"}),
    # What Kubernetes makes of a limit alone: of the container's, and of the Pod's.
    (within({"requests": {"cpu": 1}}, app={"limits": {"cpu": 1}}), {"requests.cpu": "1020m"}),
    (within({"limits": {"cpu": "2"}}, app=SMALL), {"requests.cpu": "110m"}),
    (within({"limits": {"memory": "1Gi"}}, app={"limits": {"memory": "1Gi"}}),
     {"requests.memory": "1088Mi", "limits.memory": "1088Mi"}),
    # An init container runs beside the sidecar that stands before it.
    (within({"requests": {"cpu": "500m"}}, app=SMALL, init={"requests": {"cpu": "500m"}}), {"requests.cpu": "520m"}),
    (within({"limits": {"cpu": "100m"}}, cpu_limit="200m"), {"limits.cpu": "200m"}),
]  # fmt: skip


@pytest.mark.parametrize(("obj", "right"), TOO_SMALL, ids=range(len(TOO_SMALL)))
def test_resources_of_the_whole_pod_that_litestream_does_not_fit_into_are_told_with_what_to_write(
    obj: Object, right: dict[str, str]
) -> None:
    obj = copy.deepcopy(obj)
    found = reviews.denied(obj)
    assert found.keys() == {f"spec.resources.{place}" for place in right}
    for place, amount in right.items():
        assert f"write {amount} or more" in found[f"spec.resources.{place}"]
        kind, resource = place.split(".")
        obj["spec"]["resources"].setdefault(kind, {})[resource] = amount
    assert fields(obj) == []
    assert reviews.injected(reviews.injected(obj)) == reviews.injected(obj)


def test_an_init_container_that_ends_before_the_sidecar_starts_does_not_run_beside_it() -> None:
    large: Object = {"requests": {"cpu": "500m"}}
    assert fields(within({"requests": {"cpu": "500m"}}, app=SMALL, init=large, init_first="false")) == []


def test_resources_of_the_whole_pod_that_litestream_fits_into_are_fine() -> None:
    obj = pod({"runAsUser": 1000})
    obj["spec"]["resources"] = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}
    assert fields(obj) == []
    assert reviews.injected(reviews.injected(obj)) == reviews.injected(obj)
