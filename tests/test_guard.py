"""The single-writer guard, asking a stand-in of the API over TLS."""

import asyncio
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from injector.cluster import guard as module
from injector.cluster.client import PodMetadata
from injector.cluster.guard import Guard, Replica
from tests import standin
from tests.standin import Fault, Server

WEB = Replica("litestream", "", "apps/deployment/web/data/app.db")
AUDIT = Replica("litestream", "", "apps/deployment/web/data/audit.db")


def status(*paths: str, **fields: Any) -> dict[str, Any]:
    databases = {f"/data/{n}.db": path for n, path in enumerate(paths or (WEB.path,))}
    return {
        "version": "1.0.0",
        "image": "litestream/litestream:0.5.17",
        "bucket": "litestream",
        "databases": databases,
        "containers": ["app"],
        "gracePeriod": 30,
    } | fields


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with standin.serving(tmp_path) as found:
        yield found


def judge(
    server: Server,
    *replicas: Replica,
    pod: str = "",
    on_error: str = "deny",
    variant: str = "",
    namespace: str = "apps",
) -> str | None:
    async def main() -> str | None:
        cluster = server.cluster()
        guard = Guard(cluster, on_error, variant)
        try:
            return await guard.other_writer(namespace, pod, replicas or (WEB,))
        finally:
            await cluster.close()

    return asyncio.run(main())


def test_a_pod_passes_where_nobody_else_writes(server: Server) -> None:
    server.api.put("pods", "apps", standin.pod("other", status=status("apps/deployment/other/app.db")))
    server.api.put("pods", "elsewhere", standin.pod("twin", "elsewhere", status=status()))
    assert judge(server) is None
    assert len(server.api.requests) == 1


def test_a_running_writer_is_named(server: Server) -> None:
    server.api.put("pods", "apps", standin.pod("web-old", status=status()))
    message = judge(server)
    assert message is not None
    assert 'Pod "web-old" still writes the replica "litestream/apps/deployment/web/data/app.db"' in message
    assert "replicas: 1" in message
    assert "--force" not in message


def test_an_ending_writer_is_named_with_since_when_and_how_to_force_it(server: Server) -> None:
    ending = standin.pod("web-old", status=status(), ending="2026-01-02T03:04:35Z", grace=30)
    server.api.put("pods", "apps", ending)
    message = judge(server)
    assert message is not None
    assert "it has been terminating since 2026-01-02 03:04:05 UTC" in message
    assert "kubectl delete pod web-old -n apps --force --grace-period=0" in message
    assert "only if you are sure" in message


def test_the_new_pod_passes_right_after_the_old_one_is_gone(server: Server) -> None:
    server.api.put("pods", "apps", standin.pod("web-old", status=status(), ending="2026-01-02T03:04:35Z"))
    assert judge(server) is not None
    del server.api.objects["pods", "apps", "web-old"]
    assert judge(server) is None


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_does_not_write(server: Server, phase: str) -> None:
    server.api.put("pods", "apps", standin.pod("web-old", status=status(), phase=phase))
    assert judge(server) is None


def test_one_shared_database_of_two_is_enough(server: Server) -> None:
    server.api.put("pods", "apps", standin.pod("old", status=status("apps/else.db", AUDIT.path)))
    message = judge(server, WEB, AUDIT)
    assert message is not None
    assert AUDIT.path in message
    assert WEB.path not in message


def test_a_pod_of_the_same_name_is_left_to_the_api_server(server: Server) -> None:
    server.api.put("pods", "apps", standin.pod("web", status=status()))
    assert judge(server, pod="web") is None
    assert judge(server, pod="web-2") is not None


@pytest.mark.parametrize(
    ("theirs", "collides"),
    [
        ({}, True),
        ({"endpoint": None}, True),
        ({"bucket": None}, True),
        ({"endpoint": "http://minio:9000/"}, True),
        ({"endpoint": "http://other:9000"}, False),
        ({"bucket": "other"}, False),
    ],
)
def test_bucket_and_endpoint_count_where_they_are_known(server: Server, theirs: dict[str, Any], collides: bool) -> None:
    server.api.put("pods", "apps", standin.pod("old", status=status(**theirs)))
    ours = Replica("litestream", "http://minio:9000", WEB.path)
    assert (judge(server, ours) is not None) is collides


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"databases": 1}', '{"databases":{"/a":["b"]}}', "\x00", "[" * 5000]
)
def test_an_unreadable_status_is_ignored_and_logged(
    server: Server, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.api.put("pods", "apps", standin.pod("odd", status=text))
    assert judge(server) is None
    assert 'Pod "odd"' in caplog.text
    server.api.put("pods", "apps", standin.pod("old", status=status()))
    assert judge(server) is not None


def test_each_variant_asks_for_its_own_label(server: Server) -> None:
    server.api.put("pods", "apps", standin.pod("old", status=status(), variant="skaffold."))
    assert judge(server) is None
    assert judge(server, variant="skaffold") is not None


@pytest.mark.parametrize(
    "fault",
    [
        Fault(500, times=99),
        Fault(0, times=99),
        Fault(times=99, seconds=3),
        Fault(403),
        Fault(429, 99, headers={"Retry-After": "60"}),
    ],
    ids=["500", "reset", "slow", "403", "429"],
)
def test_when_the_api_cant_be_asked_the_operator_decides(
    server: Server, fault: Fault, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Enough for a handshake: one that a limit cuts short leaves its connection to the garbage collector (httpcore2).
    monkeypatch.setattr(module, "LIMIT", 1.0)
    server.api.faults.append(fault)
    message = judge(server)
    assert message is not None
    assert "GUARD_ON_ERROR=allow" in message
    fault.times = 99
    with caplog.at_level(logging.WARNING):
        assert judge(server, on_error="allow") is None
    assert "allowed" in caplog.text


def test_a_missing_permission_is_told_to_the_one_who_creates_the_pod(server: Server) -> None:
    server.api.rules.clear()
    message = judge(server)
    assert message is not None
    assert 'resources: ["pods"], verbs: ["list"]' in message


def test_more_questions_than_may_be_in_flight_wait_for_their_turn(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IN_FLIGHT", 2)
    monkeypatch.setattr(module, "LIMIT", 30.0)
    server.api.put("pods", "apps", standin.pod("web-old", status=status()))
    server.api.faults.append(Fault(times=12, seconds=0.02))

    async def main() -> list[str | None]:
        cluster = server.cluster()
        guard = Guard(cluster)
        try:
            return await asyncio.gather(*(guard.other_writer("apps", "", [WEB]) for _ in range(12)))
        finally:
            await cluster.close()

    assert None not in asyncio.run(main())
    assert len(server.api.requests) == 12
    assert server.api.most_in_flight == 2


def test_outside_a_cluster_it_is_off_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    guard = Guard(None)
    assert asyncio.run(guard.other_writer("apps", "", [WEB])) is None
    assert asyncio.run(guard.other_writer("apps", "", [WEB])) is None
    assert caplog.text.count("guard is off") == 1


def test_a_pod_without_databases_is_not_asked_about(server: Server) -> None:
    async def main() -> str | None:
        return await Guard(server.cluster()).other_writer("apps", "", [])

    assert asyncio.run(main()) is None
    assert server.api.requests == []


def test_the_time_of_the_request_to_end_is_before_the_grace_period() -> None:
    found = module.writer(
        [
            PodMetadata(
                "old",
                {"status": '{"databases": {"/a": "p"}}'},
                datetime(2026, 1, 1, 0, 1, tzinfo=UTC),
                60,
            )
        ],
        [Replica("b", "", "/p/")],
        "status",
    )
    assert found is not None
    assert found.ending_since == datetime(2026, 1, 1, tzinfo=UTC)
