"""What is made of a sidecar's answer: the state of each database, and one sentence where it is not well."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from injector.command import health
from injector.command.health import Measure
from injector.command.kubectl import KubectlError, NotFound
from injector.command.pods import Injected, Marks
from injector.command.sidecar import SILENT, Database, Report

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
IMAGE = "litestream/litestream:0.5.17"
MEASURE = Measure(300, IMAGE, NOW)
BUCKET = "bucket litestream at http://s3"


def pod(**more: Any) -> Injected:
    """One that has run for an hour."""
    usual: dict[str, Any] = {
        "namespace": "shop",
        "name": "web",
        "workload": "deployment/web",
        "phase": "Running",
        "marks": Marks({"/a.db": "shop/a.db"}, "litestream", "http://s3"),
        "image": IMAGE,
        "way": "shell",
        "running": True,
        "since": NOW - timedelta(hours=1),
        "hindrances": [],
        "troubles": [],
        "events": ["FailedMount: no such Secret"],
    }
    return Injected(**{**usual, **more})


def database(here: int | None, there: int | None, age: float | None = 1, since: float = 60, **more: Any) -> Database:
    """One with these positions in the database and in its replica; seconds since its last sync, and its last write."""
    return Database(
        "/a.db",
        size=more.pop("size", 4096),
        position=None if here is None else f"{here:016x}",
        written=NOW.timestamp() - since,
        replica_position=None if there is None else f"{there:016x}",
        synced=None if age is None else NOW - timedelta(seconds=age),
        age=age,
        **more,
    )


LATE = "has rows that are not in its replica; its last sync was "
LACKS = f"its replica in {BUCKET} lacks what Litestream has put there: were files deleted?"
ABSENT = "is not there: its application has not made it yet, or elsewhere"
AHEAD = "its replica is ahead of it: another Pod writes there, or an older database was put in place"


@pytest.mark.parametrize(
    ("found", "state", "sentence"),
    [
        (database(9, 9), "ok", ""),
        (database(9, 9, age=86400), "ok", ""),
        (database(9, 8, since=0), "ok", ""),
        (database(9, 8, age=60, since=50), "waiting", ""),
        (database(9, 8, age=600, since=590), "failing", f"{LATE}10m ago"),
        (database(9, None, age=None), "failing", f"{LATE}never"),
        (database(9, 8, age=1, since=60), "failing", LACKS),
        (database(9, None, age=1, since=60), "failing", LACKS),
        (database(8, 9), "failing", AHEAD),
        (database(None, 9, age=None), "failing", "Litestream has not opened it: see its log"),
        (database(None, None, age=None, size=None), "waiting", ABSENT),
        (database(9, None, age=60, bucket=SILENT), "failing", f"{BUCKET} does not answer; its last sync was 60s ago"),
        (database(9, None, bucket="AccessDenied"), "failing", f"its replica in {BUCKET} can't be read: AccessDenied"),
    ],
)  # fmt: skip
def test_the_state_of_a_database(found: Database, state: str, sentence: str) -> None:
    (row,), problems = health.judged(pod(), Report("0.5.17", [], [found]), MEASURE)
    assert (row.state, [each.message for each in problems]) == (state, [sentence] * bool(sentence))
    assert [each.severity for each in problems] == ["error" if state == "failing" else "warning"] * bool(sentence)
    assert (row.namespace, row.name, row.database, row.replica) == ("shop", "web", "/a.db", "s3://litestream/shop/a.db")


@pytest.mark.parametrize(
    ("bucket", "endpoint", "replica", "called"),
    [
        ("mine", None, "s3://mine/shop/a.db", "bucket mine at AWS"),
        ("mine", "http://s3", "s3://mine/shop/a.db", "bucket mine at http://s3"),
        ("gs://mine", None, "gs://mine/shop/a.db", "bucket gs://mine"),
        ("sftp://me@host/mine", None, "sftp://me@host/mine/shop/a.db", "bucket sftp://me@host/mine"),
    ],
)
def test_each_store_is_called_as_its_annotation_has_it(
    bucket: str, endpoint: str | None, replica: str, called: str
) -> None:
    there = pod(marks=Marks({"/a.db": "shop/a.db"}, bucket, endpoint))
    (row,), (problem,) = health.judged(there, Report("0.5.17", [], [database(9, None, bucket=SILENT)]), MEASURE)
    assert row.replica == replica
    assert problem.message.startswith(f"{called} does not answer")


@pytest.mark.parametrize("found", [database(9, None, age=None), database(None, None, age=None)])
def test_a_pod_that_has_just_begun_is_given_time(found: Database) -> None:
    young = pod(since=NOW - timedelta(seconds=20))
    (row,), problems = health.judged(young, Report("0.5.17", [], [found]), MEASURE)
    assert (row.state, problems) == ("waiting", [])


def test_how_long_rows_may_wait_is_what_was_asked_for() -> None:
    found = Report("0.5.17", [], [database(9, 8, age=60, since=50)])
    (row,), _ = health.judged(pod(), found, MEASURE._replace(max_age=30))
    assert row.state == "failing"


@pytest.mark.parametrize(("age", "state"), [(1, "ok"), (600, "failing"), (None, "failing")])
def test_without_a_shell_the_last_sync_is_all_that_is_known(age: float | None, state: str) -> None:
    found = database(None, None, age=age, size=None)
    (row,), _ = health.judged(pod(way="binary"), Report("0.5.17", [], [found]), MEASURE)
    assert row.state == state


def test_what_the_sidecar_says_counts_for_the_database_that_it_names() -> None:
    wrong = ["/a.db is locked by its application"]
    rows, problems = health.judged(
        pod(), Report("0.5.17", wrong, [database(9, 9), database(9, 9)._replace(path="/b.db")]), MEASURE
    )
    assert [row.state for row in rows] == ["failing", "ok"]
    assert [(each.severity, each.message) for each in problems] == [("error", wrong[0])]


def test_a_litestream_that_does_not_answer_fails_all_its_databases() -> None:
    found = Report(None, ["Litestream does not answer: no socket"], [database(9, 9)])
    assert health.judged(pod(), found, MEASURE)[0][0].state == "failing"


def test_who_may_not_ask_does_not_know() -> None:
    (row,), (event, problem) = health.judged(pod(), KubectlError("you may not"), MEASURE)
    assert (row.state, problem.severity, problem.message) == ("unknown", "unknown", "you may not")
    assert (event.severity, event.message) == ("warning", "FailedMount: no such Secret")
    assert (row.litestream, row.replica) == ("0.5.17", "s3://litestream/shop/a.db")


def test_a_pod_that_went_meanwhile_is_no_fault() -> None:
    (row,), (problem,) = health.judged(pod(events=[]), NotFound("there is no Pod"), MEASURE)
    assert (row.state, problem.severity, problem.message) == ("waiting", "warning", "has gone while it was asked")


def test_an_old_litestream_can_not_be_asked_and_says_so() -> None:
    old = pod(way="none", image="litestream/litestream:0.3.13", events=[])
    (row,), problems = health.judged(old, None, MEASURE)
    assert row.state == "unknown"
    assert [each.message for each in problems] == [
        "its Litestream says nothing of its state, as releases before 0.5.8 don't",
        "runs Litestream 0.3.13, which is older than the default 0.5.17",
    ]
    assert {each.severity for each in problems} == {"warning"}


def test_what_holds_a_pod_up_is_an_error_and_a_restart_is_none() -> None:
    held = pod(running=False, events=[], hindrances=["init ended with exit code 1"], troubles=["started again"])
    (row,), problems = health.judged(held, None, MEASURE)
    assert row.state == "failing"
    assert [(each.severity, each.message) for each in problems] == [
        ("error", "init ended with exit code 1"),
        ("warning", "started again"),
    ]
    assert health.judged(pod(running=False), None, MEASURE)[0][0].state == "waiting"


@pytest.mark.parametrize(
    ("image", "default", "told"),
    [
        ("litestream/litestream:0.5.16", IMAGE, True),
        ("r.example:5000/ls:v0.5.9-scratch", IMAGE, True),
        ("litestream/litestream:0.5.18", IMAGE, False),
        ("litestream/litestream:0.5.17@sha256:00", IMAGE, False),
        ("litestream/litestream:latest", IMAGE, False),
        ("litestream/litestream:0.5.9", "litestream:mine", False),
        (f"litestream:{'1' * 5000}.0", IMAGE, False),
    ],
)
def test_an_older_release_than_the_default_is_told(image: str, default: str, told: bool) -> None:
    _, problems = health.judged(pod(image=image), Report(None, [], [database(9, 9)]), MEASURE._replace(image=default))
    assert bool(problems) is told


def test_what_litestream_says_of_its_release_counts_before_its_tag() -> None:
    (row,), problems = health.judged(pod(), Report("0.5.16", [], [database(9, 9)]), MEASURE)
    assert (row.litestream, len(problems)) == ("0.5.16", 1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "never"), (0.4, "0s ago"), (119, "119s ago"), (120, "2m ago"), (7200, "2h ago"), (200000, "2d ago")],
)
def test_ages_have_one_unit(seconds: float | None, text: str) -> None:
    assert health.ago(seconds) == text
