"""What each scenario promises. `DURABILITY=full` repeats them as often as the README's numbers say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.durability import scenarios
from tests.durability.stage import NATIVE_03, NATIVE_05, WAYS, Way
from tests.podrunner.s3 import S3

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.containers, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with S3() as server:
        yield server


def ways(*lean: Way) -> pytest.MarkDecorator:
    """Every way where all is measured, else only those that the promise rests on."""
    return pytest.mark.parametrize("way", WAYS if scenarios.FULL else lean, ids="-".join)


@ways(NATIVE_05, NATIVE_03)
def test_a_pod_that_is_deleted_while_it_writes_loses_no_row(s3: S3, way: Way) -> None:
    row = scenarios.recreation(way, s3)
    assert row.acknowledged > 0
    if way.sidecar == "native":
        assert row.lost == 0, row
    else:
        assert row.restored > 0, row


@ways(NATIVE_05)
@pytest.mark.parametrize("interval", ["1s", "200ms"])
def test_a_dead_node_takes_with_it_only_what_was_written_last(s3: S3, way: Way, interval: str) -> None:
    row = scenarios.dead_node(way, s3, interval)
    assert row.restored > 0
    assert max(row.losses) <= 300, row  # 3 s at 100 rows/s: an interval and an upload on a loaded machine
