"""What names a replica's Lease, what it says, and who may have it next."""

from datetime import UTC, datetime, timedelta
from typing import Any

import jsonpatch
import pytest

from injector import GROUP
from injector.cluster import lease
from injector.cluster.lease import Asks, BadLease, Holder, Lease, Look, Take
from injector.pod.claim import Claim
from injector.stores import Place
from tests import standin

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
PLACE = Place("http://minio:9000", "backups", "apps/web.db")
NAME = lease.name_of(PLACE)
HELD = Lease(NAME, Holder("apps", "web-1"), "deployment/web", "a mark", NOW, again=False, uid="u", version="7")
NAMED = Asks("apps", "web-1", "deployment/web", "")
OTHER = Asks("apps", "api-1", "deployment/api", "")


@pytest.mark.parametrize(
    "other",
    [
        PLACE._replace(endpoint="http://minio:9001"),
        PLACE._replace(bucket="backup"),
        PLACE._replace(path="apps/Web.db"),
        PLACE._replace(path="apps/web.db2"),
    ],
)
def test_other_places_have_other_leases(other: Place) -> None:
    assert lease.name_of(other) != NAME


def test_a_lease_says_what_was_written() -> None:
    written = lease.write(HELD, "litestream-hook", PLACE)
    assert lease.read(written) == HELD
    assert written["metadata"]["annotations"][f"{GROUP}/replica"] == "minio:9000/backups/apps/web.db"
    assert written["spec"]["acquireTime"] == "2026-01-01T12:00:00.000000Z"
    assert lease.read(lease.write(HELD._replace(again=True), "litestream-hook", PLACE)).again


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {}},
        {"spec": {"holderIdentity": "web-1", "acquireTime": "2026-01-01T12:00:00.000000Z"}},
        {"spec": {"holderIdentity": "apps/web-1", "acquireTime": "noon"}},
        {"spec": {"holderIdentity": "apps/web-1", "acquireTime": "2026-01-01T12:00:00"}},
        {"metadata": {"name": NAME}},
        {"metadata": {"name": NAME, "annotations": {}}},
    ],
)
def test_a_lease_that_somebody_changed_is_not_guessed_at(change: dict[str, Any]) -> None:
    with pytest.raises(BadLease, match="make sure that no Pod writes the replica"):
        lease.read(lease.write(HELD, "litestream-hook", PLACE) | change)


def test_a_replica_that_nobody_had_is_free() -> None:
    assert lease.decide(NAMED, Look(None, NOW)) == Take(again=False, alone=True)


def test_a_living_holder_keeps_it_however_old() -> None:
    pod = standin.pod("web-1", claim=Claim("web-1", "a mark", (NAME,)))
    late = NOW + timedelta(days=9)
    assert lease.decide(OTHER, Look(HELD, late, pod)) is None
    assert lease.decide(NAMED, Look(HELD, late, pod)) is None


def test_the_second_call_for_one_creation_renews_what_has_its_mark() -> None:
    patch = lease.renewal(NAMED._replace(mark="a mark", workload="deployment/shop"), "newer", NOW)
    renewed = jsonpatch.apply_patch(lease.write(HELD._replace(again=True), "litestream-hook", PLACE), patch)
    assert lease.read(renewed) == HELD._replace(again=True, mark="newer", workload="deployment/shop", admitted=NOW)
    for other in (HELD._replace(mark="another"), HELD._replace(holder=Holder("apps", "web-2"))):
        with pytest.raises(jsonpatch.JsonPatchTestFailed):
            jsonpatch.apply_patch(lease.write(other, "litestream-hook", PLACE), patch)


def test_a_second_creation_of_the_same_name_is_marked_as_one() -> None:
    assert lease.decide(NAMED, Look(HELD, NOW)) == Take(again=True, alone=False)
    copied = NAMED._replace(mark="an earlier mark")
    assert lease.decide(copied, Look(HELD, NOW)) == Take(again=True, alone=False)


def test_a_nameless_pod_takes_over_the_name_of_its_workload_alone() -> None:
    nameless = NAMED._replace(name="")
    assert lease.inherited_name(nameless, Look(HELD, NOW)) == "web-1"
    assert lease.inherited_name(nameless._replace(workload="deployment/api"), Look(HELD, NOW)) == ""
    assert lease.inherited_name(nameless._replace(namespace="elsewhere"), Look(HELD, NOW)) == ""
    assert lease.inherited_name(nameless, Look(HELD, NOW, standin.pod("web-1"))) == ""
    assert lease.inherited_name(nameless, Look(None, NOW)) == ""


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_an_ended_holder_frees_it_if_nothing_else_can_come(phase: str) -> None:
    pod = standin.pod("web-1", claim=Claim("web-1", "a mark", (NAME,)), phase=phase)
    assert lease.decide(OTHER, Look(HELD, NOW, pod)) == Take(again=False, alone=True)
    assert lease.decide(OTHER, Look(HELD._replace(again=True), NOW, pod)) is None
    assert lease.decide(OTHER, Look(HELD._replace(mark="newer"), NOW, pod)) is None


def test_otherwise_time_frees_it() -> None:
    assert lease.decide(OTHER, Look(HELD, NOW + lease.EXPIRY)) is None
    late = NOW + lease.EXPIRY + timedelta(microseconds=1)
    assert lease.decide(OTHER, Look(HELD, late)) == Take(again=False, alone=True)
    namesake = standin.pod("web-1")  # of the holder's name, but no writer
    assert lease.decide(OTHER, Look(HELD, NOW, namesake)) is None
    assert lease.decide(OTHER, Look(HELD, late, namesake)) == Take(again=False, alone=True)


def test_a_pod_lives_as_a_writer_by_its_spec_alone() -> None:
    assert not lease.lives(NAME, None)
    assert not lease.lives(NAME, standin.pod("web-1"))
    assert not lease.lives(NAME, standin.pod("web-1", claim=Claim("web-1", "m", ("another",))))
    assert lease.lives(NAME, standin.pod("web-1", claim=Claim("web-1", "m", ("another", NAME))))
    ending = standin.pod("web-1", claim=Claim("web-1", "m", (NAME,)), ending="2026-01-02T03:04:35Z")
    assert lease.lives(NAME, ending)
