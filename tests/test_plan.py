"""The plan: what travels together is read once, and can't be changed on its way."""

import pytest

from injector.pod.plan import Credentials, Plan, User
from tests import reviews


def test_a_plan_can_not_be_changed_on_its_way() -> None:
    with pytest.raises(AttributeError):
        User(1000, None).uid = 0  # type: ignore[misc]


def test_what_the_injected_containers_do_not_depend_on_stands_in_front() -> None:
    """They are found again by all that follows it (inject.py)."""
    assert Plan._fields[:3] == ("settings", "targets", "earlier")


def test_credentials_of_an_ambient_identity_without_variables_are_none() -> None:
    assert Credentials().environment == ()
    assert Credentials().mounts == ()


@pytest.mark.parametrize("sidecar", ["native", "container"])
def test_the_plan_decides_where_the_sidecar_stands(sidecar: str) -> None:
    spec = reviews.injected(reviews.pod(sidecar=sidecar))["spec"]
    names = [container["name"] for container in spec["initContainers"]]
    assert ("litestream-hook-replicate" in names) == (sidecar == "native")
