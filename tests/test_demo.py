"""The promise itself: rows outlive the Pod, with a real webhook, Litestream, S3 server and containers."""

import pytest

from tests import demo

pytestmark = [pytest.mark.slow, pytest.mark.containers]


def test_rows_written_before_a_pod_is_deleted_are_there_in_its_next_life() -> None:
    steps: list[str] = []
    before, after = demo.demonstrate(steps.append)
    assert before >= demo.ROWS
    # A row may be committed, and so kept, that the application had no time to tell of.
    assert after in (before, before + 1), "\n".join(steps)
