"""The single-writer guard, asking a stand-in of the API over TLS."""

import asyncio
import logging
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from injector import GROUP, options
from injector.annotations.operator_file import OperatorFile
from injector.cluster import client, lease
from injector.cluster import guard as module
from injector.cluster.client import Cluster, ClusterError
from injector.cluster.guard import Guard, new_name
from injector.pod import replica
from injector.pod.claim import LEASES, MARK, Claim, Refusal, carried, laid
from injector.pod.inject import Injection, inject
from injector.stores import Place
from tests import reviews, standin, velero
from tests.standin import NAMESPACE, Fault, Server

OPTIONS = options.read({})
HERE = Place("http://minio:9000", "litestream", "shared/data/app.db")
NAME = lease.name_of(HERE)
Object = dict[str, Any]


def injected(
    metadata: Object | None = None, namespace: str = "apps", /, bucket_by_default: str = "", **annotations: str
) -> Injection:
    """A Pod that the guard is asked about; by default nameless, of the Deployment `web`."""
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f", "controller": True}
    labels = {"pod-template-hash": "5d4f"}
    default = {"name": "", "generateName": "web-5d4f-", "labels": labels, "ownerReferences": [owner]}
    own = {"path": "/data/app.db", "endpoint": HERE.endpoint, "replica_path": "shared/{database}"} | annotations
    pod = reviews.pod(None, default if metadata is None else metadata, **own)
    file = OperatorFile({"bucket": bucket_by_default} if bucket_by_default else {})
    return inject(pod, replica.of_pod(pod, namespace), OPTIONS, file.of(namespace))


WEB = injected()
API = injected({"name": "api"})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with standin.serving(tmp_path) as found:
        yield found


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def ask(
    server: Server,
    *injections: Injection,
    clock: Clock | None = None,
    on_error: str = "deny",
    dry_run: bool = False,
    kind: type[Cluster] = Cluster,
) -> Claim | Refusal:
    """The guard's answer to the last of several questions, one after another."""

    async def main() -> Claim | Refusal:
        cluster = kind(f"https://{server.host}:{server.port}", server.folder)
        guard = Guard(cluster, NAMESPACE, on_error, now=clock or (lambda: datetime.now(UTC)))
        try:
            answers = [await guard.ask(injection, dry_run=dry_run) for injection in injections]
        finally:
            await cluster.close()
        return answers[-1]

    return asyncio.run(main())


def claimed(answer: Claim | Refusal) -> Claim:
    assert isinstance(answer, Claim), answer
    return answer


def refused(answer: Claim | Refusal) -> str:
    assert isinstance(answer, Refusal), answer
    return answer.message


def create(server: Server, injection: Injection, claim: Claim, namespace: str = "apps", **rest: Any) -> Object:
    """What the API server does with a Pod that was let in."""
    pod = laid(injection.pod, claim)
    metadata = {**pod["metadata"], "namespace": namespace, **rest}
    return server.api.put("pods", namespace, {**pod, "metadata": metadata, "status": {"phase": "Running"}})


def remove(server: Server, name: str, namespace: str = "apps") -> None:
    del server.api.objects["pods", namespace, name]


def leases(server: Server) -> dict[str, Object]:
    return {name: thing for (kind, _, name), thing in server.api.objects.items() if kind == "leases"}


def test_the_first_pod_gets_a_name_and_a_lease(server: Server, clock: Clock) -> None:
    claim = claimed(ask(server, WEB, clock=clock))
    assert re.fullmatch(f"web-[{module.LETTERS}]{{5}}", claim.name)
    assert claim.leases == (NAME,)
    stored = server.api.objects["leases", NAMESPACE, NAME]
    assert stored["spec"]["holderIdentity"] == f"apps/{claim.name}"
    assert stored["metadata"]["annotations"] == {
        f"{GROUP}/replica": "minio:9000/litestream/shared/data/app.db",
        f"{GROUP}/workload": "deployment/web",
        f"{GROUP}/mark": claim.mark,
        f"{GROUP}/again": "false",
    }
    assert len(server.api.requests) == 3


def moved(server: Server, *injections: Injection) -> tuple[str, ...]:
    """Where the replicas of the last of several Pods were before, each of them gone before the next is created."""
    clock, claim = Clock(), Claim()
    for injection in injections:
        claim = claimed(ask(server, injection, clock=clock))
        clock.pass_by(1000)
    return claim.moved_from


def test_a_replica_that_is_elsewhere_than_before_is_told(server: Server) -> None:
    before = "minio:9000/litestream/shared/data/app.db"
    assert moved(server, WEB) == ()
    assert moved(server, injected(bucket_by_default="other")) == (before,)
    assert moved(server, injected(replica_path="moved/{database}")) == (before, before.replace("litestream", "other"))


def test_a_replica_that_was_written_before_is_none_that_has_moved(server: Server) -> None:
    """Also with a database more than before."""
    assert moved(server, WEB, injected(bucket_by_default="other"), WEB) == ()
    assert moved(server, injected(path="/data/app.db,/data/more.db")) == ()


def test_other_workloads_replicas_have_not_moved(server: Server) -> None:
    assert moved(server, API, injected({"name": "other"}, replica_path="other/{database}")) == ()
    assert moved(server, injected(None, "elsewhere", replica_path="elsewhere/{database}")) == ()
    assert moved(server, injected(None, "third", replica_path="third/{database}")) == ()


def test_a_daemonsets_replicas_on_other_nodes_have_not_moved(server: Server) -> None:
    owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent", "controller": True}
    metadata = {"name": "", "generateName": "agent-", "ownerReferences": [owner]}
    one, two = (injected(metadata, replica_path=f"agent/{node}/{{database}}") for node in ("one", "two"))
    assert moved(server, one, two) == ()
    elsewhere = injected(metadata, replica_path="agent/two/{database}", bucket_by_default="other")
    assert moved(server, elsewhere) == ("minio:9000/litestream/agent/two/data/app.db",)


def test_a_pod_that_writes_all_of_its_place_is_not_asked_about(server: Server) -> None:
    assert moved(server, injected(bucket="litestream"), injected(bucket="other")) == ()


def test_an_api_that_can_not_say_where_a_replica_was_stops_no_pod(server: Server) -> None:
    server.api.rules = [
        rule._replace(verbs=[verb for verb in rule.verbs if verb != "list"]) if rule.resource == "leases" else rule
        for rule in server.api.rules
    ]
    assert moved(server, WEB, injected(bucket_by_default="other")) == ()


def test_a_pod_with_a_name_keeps_it(server: Server) -> None:
    assert claimed(ask(server, API)).name == "api"


def test_a_path_with_the_pods_own_name_is_no_exception(server: Server) -> None:
    own = injected({"name": "vic-0"}, replica_path="{namespace}/vic-0/{database}")
    create(server, own, claimed(ask(server, own)))
    beside = injected({"name": "maintenance"}, replica_path="apps/vic-0/{database}")
    assert 'Pod "vic-0" in namespace "apps" still writes' in refused(ask(server, beside))


def test_a_living_writer_is_named(server: Server) -> None:
    claim = claimed(ask(server, WEB))
    create(server, WEB, claim)
    for injection in (WEB, API):
        message = refused(ask(server, injection))
        assert f'Pod "{claim.name}" in namespace "apps" still writes' in message
        assert '"litestream/shared/data/app.db"' in message
        assert "nobody has asked it to end" in message
        assert "replicas: 1" in message
        assert "--force" not in message


def test_a_terminating_writer_is_named_with_since_when_and_how_to_force_it(server: Server) -> None:
    claim = claimed(ask(server, WEB))
    ending: Object = {"deletionTimestamp": "2026-01-02T03:04:35Z", "deletionGracePeriodSeconds": 30}
    create(server, WEB, claim, "apps", **ending)
    message = refused(ask(server, WEB))
    assert "it has been terminating since 2026-01-02 03:04:05 UTC" in message
    assert f"kubectl delete pod {claim.name} -n apps --force --grace-period=0" in message
    assert "only if you are sure" in message


@pytest.mark.parametrize("ending", [{}, {"deletionTimestamp": "2026-01-02T03:04:35Z"}, None])
def test_who_asks_from_another_namespace_learns_no_pods_name(server: Server, ending: Object | None) -> None:
    """Whoever reaches the port can ask, for any replica. Who may read Leases finds the Pod by the Lease."""
    claim = claimed(ask(server, WEB))
    if ending is not None:
        create(server, WEB, claim, **ending)
    message = refused(ask(server, injected({"name": "api"}, "elsewhere")))
    assert message.startswith("a Pod in another namespace ")
    assert claim.name not in message
    assert "apps" not in message
    assert message.endswith(f"kubectl get lease {NAME} -n {NAMESPACE}")


@pytest.mark.parametrize("change", [{"labels": {}}, {"annotations": {}}])
def test_a_writer_is_known_by_its_spec_alone(server: Server, change: Object) -> None:
    create(server, WEB, claimed(ask(server, WEB)), **change)
    assert "still writes" in refused(ask(server, API))


@pytest.mark.parametrize("under", ["the holder's name", "its own name"])
def test_a_pod_without_our_sidecar_is_no_writer_whatever_it_says(server: Server, clock: Clock, under: str) -> None:
    """Whoever may create or annotate Pods could keep a neighbour's Pod away."""
    writer = claimed(ask(server, WEB, clock=clock))
    create(server, WEB, writer)
    stored = server.api.objects["pods", "apps", writer.name]
    remove(server, writer.name)
    clock.pass_by(76)  # as after any creation
    squatter = standin.pod(writer.name if under == "the holder's name" else "squatter")
    proof = [{"name": LEASES, "value": NAME}, {"name": MARK, "value": writer.mark}]
    squatter["spec"] = {"containers": [{"name": "app", "env": proof}]}
    annotations = {**stored["metadata"]["annotations"], f"{GROUP}/inject": "false", LEASES: NAME, MARK: writer.mark}
    squatter["metadata"] |= {"labels": stored["metadata"]["labels"], "annotations": annotations}
    server.api.put("pods", "apps", squatter)
    second = claimed(ask(server, WEB, clock=clock))
    assert second.leases == writer.leases
    assert (second.name == writer.name) == (under == "its own name")


@pytest.mark.parametrize(
    ("namespace", "place"),
    [
        ("elsewhere", {}),
        ("apps", {"endpoint": "http://MINIO:9000/"}),
        ("apps", {"endpoint": "http://minio.:9000"}),
        ("apps", {"endpoint": "http://minio:9000/litestream", "bucket": "shared", "replica_path": "{database}"}),
    ],
)
def test_another_namespace_or_spelling_is_the_same_replica(
    server: Server, namespace: str, place: dict[str, str]
) -> None:
    create(server, WEB, claimed(ask(server, WEB)))
    assert "still writes" in refused(ask(server, injected({"name": "api"}, namespace, **place)))


@pytest.mark.parametrize("place", [{"endpoint": "http://other:9000"}, {"bucket": "other"}, {"replica_path": "other"}])
def test_other_replicas_are_free(server: Server, place: dict[str, str]) -> None:
    create(server, WEB, claimed(ask(server, WEB)))
    assert claimed(ask(server, injected({"name": "api"}, **place)))


def test_one_shared_database_of_two_is_enough(server: Server) -> None:
    create(server, WEB, claimed(ask(server, WEB)))
    both = injected({"name": "api"}, path="/data/app.db,/data/audit.db")
    message = refused(ask(server, both))
    assert "shared/data/app.db" in message
    assert "audit.db" not in message
    assert len(leases(server)) == 1


def test_the_next_pod_of_the_workload_comes_at_once_and_under_its_name(server: Server) -> None:
    first = claimed(ask(server, WEB))
    create(server, WEB, first)
    remove(server, first.name)
    second = claimed(ask(server, WEB))
    assert (second.name, second.leases) == (first.name, first.leases)
    assert second.mark != first.mark


def test_a_pod_of_a_stable_name_comes_back_at_once(server: Server) -> None:
    create(server, API, claimed(ask(server, API)))
    remove(server, "api")
    assert claimed(ask(server, API)).name == "api"


def test_a_creation_that_fails_can_be_tried_again_at_once(server: Server) -> None:
    names = {claimed(ask(server, WEB)).name for _ in range(3)}
    assert len(names) == 1


def test_a_pod_that_failed_and_stays_is_no_obstacle(server: Server) -> None:
    first = claimed(ask(server, WEB))
    create(server, WEB, first)
    server.api.objects["pods", "apps", first.name]["status"]["phase"] = "Failed"
    assert claimed(ask(server, WEB)).name != first.name


def test_another_workload_waits_until_the_first_creation_must_be_over(server: Server, clock: Clock) -> None:
    first = claimed(ask(server, WEB, clock=clock))
    clock.pass_by(5)
    message = refused(ask(server, API, clock=clock))
    assert f'Pod "{first.name}" in namespace "apps" was allowed to write' in message
    assert "in 70 s" in message
    clock.pass_by(71)
    assert claimed(ask(server, API, clock=clock)).name == "api"


def test_a_named_pod_that_is_there_already_is_named(server: Server) -> None:
    server.api.put("pods", "apps", standin.pod("api"))
    assert 'Pod "api" in namespace "apps" exists already: delete it first' in refused(ask(server, API))
    server.api.put("pods", "apps", standin.pod("api", ending="2026-01-02T03:04:35Z"))
    assert "terminating since 2026-01-02 03:04:05 UTC" in refused(ask(server, API))
    assert leases(server) == {}


def test_the_second_call_for_a_pod_goes_on_with_what_the_first_took(server: Server) -> None:
    first = claimed(ask(server, WEB))
    again = WEB._replace(pod=laid(WEB.pod, first))
    second = claimed(ask(server, again))
    assert (second.name, second.leases) == (first.name, first.leases)
    assert second.mark != first.mark
    assert leases(server)[NAME]["metadata"]["annotations"][f"{GROUP}/again"] == "false"
    assert leases(server)[NAME]["metadata"]["annotations"][f"{GROUP}/mark"] == second.mark
    # What carries the first call's mark now is another creation.
    claimed(ask(server, again))
    assert leases(server)[NAME]["metadata"]["annotations"][f"{GROUP}/again"] == "true"


def test_the_second_call_costs_one_request(server: Server) -> None:
    first = claimed(ask(server, WEB))
    server.api.requests.clear()
    claimed(ask(server, WEB._replace(pod=laid(WEB.pod, first))))
    assert [request.partition(" ")[0] for request in server.api.requests] == ["PATCH"]


def test_a_second_call_whose_replica_was_taken_meanwhile_is_refused(server: Server, clock: Clock) -> None:
    first = claimed(ask(server, WEB, clock=clock))
    clock.pass_by(76)
    claimed(ask(server, API, clock=clock))
    message = refused(ask(server, WEB._replace(pod=laid(WEB.pod, first)), clock=clock))
    assert 'Pod "api" in namespace "apps" was allowed to write' in message


def test_a_second_call_whose_lease_was_deleted_takes_it_anew(server: Server) -> None:
    first = claimed(ask(server, WEB))
    del server.api.objects["leases", NAMESPACE, NAME]
    second = claimed(ask(server, WEB._replace(pod=laid(WEB.pod, first))))
    assert (second.name, second.leases) == (first.name, (NAME,))
    assert leases(server)[NAME]["metadata"]["annotations"][f"{GROUP}/mark"] == second.mark


def test_a_dry_run_looks_and_writes_nothing(server: Server) -> None:
    assert claimed(ask(server, WEB, dry_run=True)) == Claim()
    assert leases(server) == {}
    create(server, WEB, claimed(ask(server, WEB)))
    before = leases(server)
    assert "still writes" in refused(ask(server, API, dry_run=True))
    assert leases(server) == before


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_a_write_whose_answer_was_lost_counts(server: Server, method: str) -> None:
    asked = WEB
    if method != "POST":
        first = claimed(ask(server, WEB))
        asked = WEB if method == "PUT" else WEB._replace(pod=laid(WEB.pod, first))
    server.api.faults.append(Fault(method=method, resource="leases", effect=True))
    claim = claimed(ask(server, asked))
    assert (leases(server)[NAME]["metadata"]["annotations"][f"{GROUP}/again"] == "true") is (method == "PUT")
    assert leases(server)[NAME]["metadata"]["annotations"][f"{GROUP}/mark"] == claim.mark


class Faster(Cluster):
    """A cluster in which somebody else is a little faster, at the last of a Pod's Leases."""

    async def create_lease(self, namespace: str, found: Object) -> Object:
        if "zzz" in found["metadata"]["annotations"][f"{GROUP}/replica"]:
            other = lease.read(found)._replace(mark="another mark")
            await super().create_lease(namespace, lease.write(other, namespace, HERE))
        return await super().create_lease(namespace, found)


class Failing(Cluster):
    """A cluster that fails at the last of a Pod's Leases."""

    async def create_lease(self, namespace: str, found: Object) -> Object:
        if "zzz" in found["metadata"]["annotations"][f"{GROUP}/replica"]:
            raise ClusterError("as the test wished")
        return await super().create_lease(namespace, found)


def both_in_order() -> Injection:
    """A Pod of two databases, the second of which has the Lease that is taken last."""
    for number in range(100):
        database = f"/data/zzz{number}.db"
        if lease.name_of(HERE._replace(path=f"shared{database}")) > NAME:
            return injected({"name": "api"}, path=f"/data/app.db,{database}")
    raise AssertionError("no such name")


@pytest.mark.parametrize("kind", [Faster, Failing])
def test_what_was_taken_in_vain_is_given_back(server: Server, kind: type[Cluster]) -> None:
    message = refused(ask(server, both_in_order(), kind=kind))
    assert ("at the same moment" if kind is Faster else "as the test wished") in message
    assert NAME not in leases(server)
    assert claimed(ask(server, WEB))


def test_what_a_retry_needs_is_not_given_back(server: Server) -> None:
    both = both_in_order()
    ask(server, API)
    refused(ask(server, both, kind=Faster))
    assert leases(server)[NAME]["spec"]["holderIdentity"] == "apps/api"


def test_leases_are_always_taken_in_one_order(server: Server) -> None:
    paths = [f"/data/{number}.db" for number in range(5)]
    for databases in (paths, paths[::-1]):
        claim = claimed(ask(server, injected({"name": "api"}, path=",".join(databases))))
        assert list(claim.leases) == sorted(claim.leases)


def test_a_lease_that_somebody_changed_is_not_guessed_at(server: Server) -> None:
    ask(server, WEB)
    server.api.objects["leases", NAMESPACE, NAME]["metadata"]["annotations"].clear()
    message = refused(ask(server, WEB))
    assert NAME in message
    assert "make sure that no Pod writes the replica" in message


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        Fault(500, times=99),
        Fault(0, times=99),
        Fault(times=99, seconds=3),
        Fault(403, times=99),
        Fault(429, 99, headers={"Retry-After": "60"}),
    ],
    ids=["500", "reset", "slow", "403", "429"],
)
def test_when_the_api_cant_be_asked_the_operator_decides(
    server: Server, fault: Fault, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 1.0)  # longer than a handshake takes on a busy machine
    server.api.faults.append(fault)
    message = refused(ask(server, WEB))
    assert "GUARD_ON_ERROR=allow" in message
    assert " 0 s" not in message
    assert "0.0" not in message
    fault.times = 99
    with caplog.at_level(logging.WARNING):
        assert claimed(ask(server, WEB, on_error="allow")) == Claim()
    assert "allowed" in caplog.text


def test_a_short_outage_of_the_api_is_waited_for(server: Server) -> None:
    server.api.faults.append(Fault(times=1, seconds=1.2))
    assert claimed(ask(server, WEB)).leases


def test_why_the_api_was_of_no_use_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.LIMIT < module.PATIENCE < 9  # the API server waits 10 s for us
    monkeypatch.setattr(client, "LIMIT", 1.0)
    server.api.faults.append(Fault(500, times=99))
    assert 'asked for 1 s in vain: 500 "as the test wished". The Pod' in refused(ask(server, WEB))


@pytest.mark.parametrize("resource", ["leases", "pods"])
def test_a_missing_permission_is_told_to_the_one_who_creates_the_pod(server: Server, resource: str) -> None:
    ask(server, WEB)
    server.api.rules = [rule for rule in server.api.rules if rule.resource != resource]
    assert f'resources: ["{resource}"]' in refused(ask(server, WEB))


def test_more_questions_than_may_be_in_flight_wait_for_their_turn(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IN_FLIGHT", 2)
    monkeypatch.setattr(module, "PATIENCE", 30.0)
    create(server, WEB, claimed(ask(server, WEB)))
    server.api.requests.clear()
    server.api.faults.append(Fault(times=24, seconds=0.02))

    async def main() -> list[Claim | Refusal]:
        cluster = server.cluster()
        guard = Guard(cluster, NAMESPACE)
        try:
            return await asyncio.gather(*(guard.ask(WEB) for _ in range(12)))
        finally:
            await cluster.close()

    assert all(isinstance(answer, Refusal) for answer in asyncio.run(main()))
    assert len(server.api.requests) == 24
    assert server.api.most_in_flight == 2


def test_questions_are_measured(server: Server) -> None:
    seen = []

    async def main() -> None:
        cluster = server.cluster()
        guard = Guard(cluster, NAMESPACE, observe=lambda result, seconds: seen.append((result, seconds > 0)))
        await guard.ask(WEB)
        create(server, WEB, claimed(await guard.ask(WEB)))
        await guard.ask(WEB)
        server.api.rules.clear()
        await guard.ask(WEB)
        await cluster.close()

    asyncio.run(main())
    assert seen == [("free", True), ("free", True), ("taken", True), ("unknown", True)]


def test_a_lease_is_swept_when_its_pod_is_gone_for_a_day(server: Server, clock: Clock) -> None:
    create(server, WEB, claimed(ask(server, WEB, clock=clock)))
    ask(server, injected({"name": "gone"}, replica_path="gone/{database}"), clock=clock)
    clock.pass_by(24 * 3600 + 1)
    ask(server, injected({"name": "new"}, replica_path="new/{database}"), clock=clock)
    assert len(leases(server)) == 3
    assert asyncio.run(swept(server, clock)) == 1
    holders = {thing["spec"]["holderIdentity"] for thing in leases(server).values()}
    assert "apps/gone" not in holders
    assert len(holders) == 2
    assert asyncio.run(swept(server, clock)) == 0


async def swept(server: Server, clock: Clock) -> int:
    cluster = server.cluster()
    try:
        return await Guard(cluster, NAMESPACE, now=clock).sweep()
    finally:
        await cluster.close()


def test_a_sweep_leaves_what_it_can_t_read_and_what_is_not_its_own(server: Server, clock: Clock) -> None:
    ask(server, WEB, clock=clock)
    changed = server.api.objects["leases", NAMESPACE, NAME]
    foreign = {**changed, "metadata": {**changed["metadata"], "name": "leader"}}
    server.api.put("leases", NAMESPACE, foreign)
    changed["metadata"]["annotations"].clear()
    clock.pass_by(24 * 3600 + 1)
    assert asyncio.run(swept(server, clock)) == 0
    assert leases(server).keys() == {NAME, "leader"}


def test_a_sweep_goes_on_where_somebody_was_faster(server: Server, clock: Clock) -> None:
    for name in ("one", "two"):
        ask(server, injected({"name": name}, replica_path=f"{name}/{{database}}"), clock=clock)
    clock.pass_by(24 * 3600 + 1)
    server.api.faults.append(Fault(409, method="DELETE"))
    assert asyncio.run(swept(server, clock)) == 1


@pytest.mark.parametrize("base", ["web", "w" * 60, "a" * 56 + "-b", "with.dots."])
def test_a_new_name_is_one_of_a_host(base: str) -> None:
    name = new_name(f"deployment/{base}")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", name)
    assert len(name) <= 63
    assert new_name(f"deployment/{base}") != name


def test_a_stored_pod_carries_its_claim(server: Server) -> None:
    claim = claimed(ask(server, WEB))
    stored: Mapping[str, Any] = create(server, WEB, claim)
    assert carried(stored) == claim


def again(pod: Object) -> Injection:
    """What the webhook makes of a Pod that Velero creates again."""
    return inject(pod, replica.of_pod(pod, "apps"), OPTIONS)


OWN_PATH = injected(replica_path="{namespace}/{kind}/{workload}/{database}")


@pytest.mark.parametrize("elsewhere", [False, True], ids=["in its cluster", "in another cluster"])
@pytest.mark.parametrize("files", [None, "data"])
def test_a_restored_pod_is_admitted_as_it_is_if_nobody_writes(
    server: Server, files: str | None, *, elsewhere: bool
) -> None:
    stored = create(server, OWN_PATH, claimed(ask(server, OWN_PATH)))
    server.api.objects.clear() if elsewhere else remove(server, stored["metadata"]["name"])
    pod = velero.restored(stored, files)
    claim = claimed(ask(server, again(pod)))
    assert claim.mark != carried(stored).mark
    let_in = laid(again(pod).pod, claim)
    assert laid(let_in, carried(stored)) == pod, "only the mark is another one"
    (held,) = leases(server).values()
    assert held["spec"]["holderIdentity"] == f"apps/{stored['metadata']['name']}"
    assert held["metadata"]["annotations"][f"{GROUP}/workload"] == "deployment/web"
    # Its controller comes later, and takes it back; until it is gone there is no second Pod.
    server.api.put("pods", "apps", {**let_in, "metadata": {**let_in["metadata"], "namespace": "apps"}})
    assert "still writes" in refused(ask(server, OWN_PATH))
    remove(server, claim.name)
    assert claimed(ask(server, OWN_PATH)).name == claim.name


def test_a_restored_pod_is_no_second_writer_beside_its_workloads_own(server: Server, clock: Clock) -> None:
    stored = create(server, OWN_PATH, claimed(ask(server, OWN_PATH, clock=clock)))
    backup = again(velero.restored(stored))
    name = stored["metadata"]["name"]
    remove(server, name)
    successor = create(server, OWN_PATH, claimed(ask(server, OWN_PATH, clock=clock)))
    assert successor["metadata"]["name"] == name
    assert "still writes" in refused(ask(server, backup, clock=clock))
    server.api.put("pods", "apps", {**successor, "status": {"phase": "Failed"}})
    clock.pass_by(76)
    another = create(server, OWN_PATH, claimed(ask(server, OWN_PATH, clock=clock)))
    assert another["metadata"]["name"] != name
    remove(server, name)
    assert "still writes" in refused(ask(server, backup, clock=clock))


def test_a_restored_stateful_pod_comes_back_under_its_name(server: Server) -> None:
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": True}
    labels = {"statefulset.kubernetes.io/pod-name": "web-0"}
    first = injected(
        {"name": "web-0", "generateName": "web-", "labels": labels, "ownerReferences": [owner]},
        replica_path="{namespace}/{kind}/{workload}/{database}",
    )
    stored = create(server, first, claimed(ask(server, first)))
    remove(server, "web-0")
    pod = velero.restored(stored)
    claim = claimed(ask(server, again(pod)))
    assert laid(laid(again(pod).pod, claim), carried(stored)) == pod


def test_of_a_large_pod_little_is_kept_while_others_ask(server: Server) -> None:
    standin.held(server.api, HERE)
    (key,) = (key for key in server.api.objects if key[0] == "pods")
    large = {"name": "app", "env": [{"name": f"E{number}"} for number in range(1000)]}
    server.api.objects[key]["spec"]["containers"].append(large)

    async def main() -> lease.Look:
        cluster = Cluster(f"https://{server.host}:{server.port}", server.folder)
        try:
            return await Guard(cluster, NAMESPACE)._look(NAME)
        finally:
            await cluster.close()

    look = asyncio.run(main())
    assert look.pod is not None
    assert lease.lives(NAME, look.pod)
    assert len(str(look.pod)) < 2000
