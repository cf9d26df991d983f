"""How long a Pod waits for its application: injected, and with as little as somebody would wire by hand.

The node looks once a second which containers have ended, as a kubelet does: each init container costs such a second.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import pytest

from injector.pod import litestream
from injector.pod.containers import INIT, REPLICATE
from tests import reviews
from tests.durability.stage import FULL, NATIVE_05, SCENARIO, Row, Stage, Way, end, unbroken, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.podrunner.s3 import S3

pytestmark = SCENARIO
TIMES = 5 if FULL else 1
ROWS = 150


def injected(pod: dict[str, Any]) -> dict[str, Any]:
    """The Pod as the webhook returns it."""
    return reviews.injected(pod)


def by_hand(pod: dict[str, Any]) -> dict[str, Any]:
    """The same containers with nothing but what writes the config, restores and replicates."""
    wired = reviews.injected(pod)
    for container in wired["spec"]["initContainers"]:
        for field in ("command", "lifecycle", "livenessProbe", "readinessProbe"):
            container.pop(field, None)
        if container["name"] == INIT:
            container["command"] = ["/bin/sh", "-c", f'printf %s "$LITESTREAM_CONFIG" > {litestream.CONFIG}']
        if container["name"] == REPLICATE:
            container["args"] = litestream.replicate_arguments()
    return wired


@pytest.mark.parametrize("shape", [by_hand, injected], ids=lambda shape: shape.__name__)
def test_a_pod_starts_and_finds_its_rows_again(
    s3: S3, shape: Callable[[dict[str, Any]], dict[str, Any]], measure: Callable[[str, Way], Row]
) -> None:
    what = f"{shape.__name__.replace('_', ' ')}, a second between the kubelet's looks, median of {TIMES} starts"
    empty, restored = (measure(f"{what}: {replica}", NATIVE_05) for replica in ("empty replica", "restored"))
    seconds: dict[str, list[float]] = {"empty": [], "restored": []}
    for _ in range(TIMES):
        with Stage(NATIVE_05, s3, relist=1) as stage:
            promised: list[int] = []
            for row, times in zip((empty, restored), seconds.values(), strict=True):
                row.start_seconds = 0
                run = stage.run(shape(stage.pod()))
                first = write(run, row, ROWS)
                times.append(row.start_seconds)
                assert first == (promised[-1] if promised else 0)
                promised = end(run, row)
            for row in (empty, restored):
                row.count(range(1, promised[-1] + 1), unbroken(stage.restored(Row("", NATIVE_05))))
    empty.start_seconds, restored.start_seconds = map(statistics.median, seconds.values())
    assert (empty.lost, restored.lost) == (0, 0)
