"""The table in docs/durability.md is made from what was measured, and nothing else of the page changes."""

from __future__ import annotations

import json

import pytest

from tests.durability.stage import NATIVE_05, Row
from tests.durability.table import PAGE, table, written


def test_the_table_tells_rows_lost_and_the_worst_of_the_repetitions() -> None:
    row = Row("a scenario", NATIVE_05, stop_seconds=1.26, start_seconds=4.0, mebibytes=41.6)
    row.count([1, 2, 3], [1, 2, 3])
    row.count([4, 5, 6], [1, 2, 3, 4])
    last = table([row]).splitlines()[-1]
    assert last == "| a scenario | 2 | native | 0.5.17 | 6 | 4 | 2 (1 at a time, at most 2) | 1.3 | 4.0 | 42 |"


def test_only_what_stands_between_the_marks_of_the_page_is_rewritten() -> None:
    before = PAGE.read_text()
    after = written(before, "| new |")
    assert "| new |" in after
    assert written(after, "| new |") == after
    assert after.split("<!-- durability -->")[0] == before.split("<!-- durability -->")[0]
    assert after.split("<!-- /durability -->")[1] == before.split("<!-- /durability -->")[1]


def test_a_page_without_marks_is_an_error() -> None:
    with pytest.raises(ValueError, match="has no <!-- durability -->"):
        written("# Title\n", "")


def test_a_row_survives_its_way_through_a_report() -> None:
    row = Row("a scenario", NATIVE_05)
    row.count([1, 2], [1])
    record = row.record()
    assert type(record["way"]) is list, "pytest-xdist sends plain data only"
    assert Row.of(json.loads(json.dumps(record))) == row
