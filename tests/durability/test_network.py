"""A network that is slow, or that goes through a proxy in the Pod, costs no row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from injector.pod.containers import REPLICATE
from tests.durability.stage import (
    GRACE_SECONDS,
    NATIVE_05,
    SCENARIO,
    Row,
    Stage,
    Way,
    end,
    unbroken,
    ways,
    write,
)
from tests.podrunner.images import PROXY
from tests.podrunner.proxy import Proxy
from tests.podrunner.s3 import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.podrunner.s3 import S3

pytestmark = SCENARIO
SLOW_SECONDS = 1.5  # that every piece of data takes, there and back


def mesh_proxy(port: int, target: int) -> dict[str, Any]:
    """The native sidecar of a service mesh, which all traffic to S3 goes through."""
    return {
        "name": "istio-proxy",
        "image": "application",
        "restartPolicy": "Always",
        "command": ["python3", PROXY, str(port), str(target)],
        "startupProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1, "failureThreshold": 30},
    }


@ways(NATIVE_05)
def test_a_mesh_s_proxy_outlives_the_final_sync(s3: S3, way: Way, measure: Callable[[str, Way], Row]) -> None:
    row = measure("deleted while writing, S3 is reached through a proxy that is a native sidecar", way)
    (port,) = free_ports(1)
    spec = {"initContainers": [mesh_proxy(port, s3.port)]}
    with Stage(way, s3, annotations={"endpoint": f"http://127.0.0.1:{port}"}) as stage:
        run = stage.start(spec=spec)
        write(run, row, 100)
        promised = end(run, row)
        ended = [event.container for event in run.events if "exit code" in event.what]
        assert ended[-2:] == [REPLICATE, "istio-proxy"]
        assert run.containers["istio-proxy"].past[-1].exit_code == 0
        row.count(promised, unbroken(stage.restored(row, spec=spec)))
    assert row.lost == 0, row


@ways(NATIVE_05)
def test_the_final_syncs_of_three_databases_fit_the_grace_period_when_s3_is_slow(
    s3: S3, way: Way, measure: Callable[[str, Way], Row]
) -> None:
    row = measure(f"three databases, S3 takes {SLOW_SECONDS:g} s for each piece of data when the Pod is deleted", way)
    databases = ("/data/a.db", "/data/b.db", "/data/c.db")
    with Proxy(s3.port) as proxy, Stage(way, s3, databases=databases) as stage:
        stage.annotations["endpoint"] = proxy.endpoint
        run = stage.start()
        write(run, row, 300)
        proxy.delay = SLOW_SECONDS
        promised = end(run, row)
        proxy.delay = 0
        assert not [event for event in run.events if event.what == "SIGKILL"], "the grace period was too short"
        row.count(promised, unbroken(stage.restored(row)))
    assert row.stop_seconds > GRACE_SECONDS + 2 * SLOW_SECONDS, "S3 was not slow"
    assert row.lost == 0, row
