"""The log: one line an event, whatever the event's text, and whatever happens to the line."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator

import pytest

from injector import options
from injector.admission.webhook import Record
from injector.serving import log

Lines = Callable[[], list[str]]
HOSTILE = 'a"\n{"level":"error"}\r\x1b[31m\u2028\u202e\x00\U0001f4a9'


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger(log.ROOT)
    before = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:], root.level, ours.level = before[0], before[1], before[2]
    logging.captureWarnings(capture=False)


@pytest.fixture
def written() -> Iterator[tuple[int, Lines]]:
    """A pipe to write lines to, and what came out of it so far."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)

    def lines() -> list[str]:
        try:
            return os.read(reading, 2**20).decode().splitlines(keepends=True)
        except BlockingIOError:
            return []

    yield writing, lines
    os.close(reading)
    os.close(writing)


def configure(descriptor: int, **environment: str) -> None:
    log.configure(options.read(environment), descriptor)


def test_an_admission_is_one_json_object_with_every_field(written: tuple[int, Lines]) -> None:
    configure(written[0])
    log.admission(Record("denied", "annotations", "u-1", "shop", "web-", "Pod", "CREATE", True, 2), 0.00123)
    [line] = written[1]()
    seen = json.loads(line)
    assert seen.pop("time").endswith("Z")
    assert seen == {
        "level": "info",
        "logger": "injector",
        "message": "admission",
        "uid": "u-1",
        "namespace": "shop",
        "name": "web-",
        "kind": "Pod",
        "operation": "CREATE",
        "outcome": "denied",
        "reason": "annotations",
        "warnings": 2,
        "dryRun": True,
        "milliseconds": 1.23,
    }


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_bad_request_says_why(written: tuple[int, Lines], form: str) -> None:
    configure(written[0], LOG_FORMAT=form)
    log.admission(Record("bad-request", "review"), 0.001, why="not JSON: JSON is malformed")
    [line] = written[1]()
    assert "not JSON: JSON is malformed" in (json.loads(line)["why"] if form == "json" else line)


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_text_of_a_user_breaks_out_of_its_line(written: tuple[int, Lines], form: str) -> None:
    configure(written[0], LOG_FORMAT=form)
    log.admission(Record("denied", "annotations", HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE), 0.001)
    [line] = written[1]()
    assert line[:-1].isprintable()
    assert line.endswith("\n")
    if form == "json":
        assert line.isascii()
        assert json.loads(line)["name"] == HOSTILE


@pytest.mark.parametrize("text", ["a" * 10_000, "\U0001f4a9" * 10_000, "\x00" * 10_000, '"' * 10_000])
@pytest.mark.parametrize("form", ["json", "text"])
def test_a_line_has_a_bounded_length_and_stays_whole(written: tuple[int, Lines], form: str, text: str) -> None:
    configure(written[0], LOG_FORMAT=form)
    log.admission(Record("denied", "annotations", text, text, text, text, text), 0.001)
    logging.getLogger("injector.cluster.guard").warning("Pod %s", text)
    lines = written[1]()
    assert len(lines) == 2
    for line in lines:
        assert len(line.encode()) <= 4096
        assert form == "text" or json.loads(line)


def test_an_exception_tells_its_place_but_not_what_it_quotes(written: tuple[int, Lines]) -> None:
    configure(written[0])
    try:
        int("top secret")
    except ValueError:
        logging.getLogger("injector").exception("it failed")
    [line] = written[1]()
    assert "secret" not in line
    assert json.loads(line)["error"] == "ValueError"
    assert "test_log.py" in json.loads(line)["trace"]


def test_a_traceback_in_another_package_s_message_is_left_out(written: tuple[int, Lines]) -> None:
    configure(written[0])
    logging.getLogger().error("Exception on /mutate\nTraceback: KeyError 'top secret'")
    assert json.loads(written[1]()[0])["message"] == "Exception on /mutate"


def test_what_strangers_cause_is_written_a_few_times_and_then_counted(
    written: tuple[int, Lines], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    configure(written[0])
    for _ in range(1000):
        log.admission(Record("bad-request", "review"), 0.001)
        logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    assert len(written[1]()) == 2 * log.REPEATS
    now += log.PERIOD_SECONDS
    log.admission(Record("bad-request", "review"), 0.001)
    [line] = written[1]()
    assert json.loads(line)["heldBack"] > 0


def test_admissions_at_a_sane_rate_are_never_held_back(
    written: tuple[int, Lines], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    configure(written[0])
    for period in range(3):
        for number in range(100):
            log.admission(Record("denied", "annotations", f"{period} {number}", "apps"), 0.001)
        uids = [json.loads(line)["uid"] for line in written[1]()]
        assert uids == [f"{period} {number}" for number in range(100)]
        now += log.PERIOD_SECONDS


def test_a_flood_of_one_namespace_is_written_in_part_and_counted_and_holds_back_no_other(
    written: tuple[int, Lines], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, before = 1000.0, log.held_back
    monkeypatch.setattr(time, "monotonic", lambda: now)
    configure(written[0])
    for number in range(1000):
        log.admission(Record("denied", "annotations", str(number), "loud"), 0.001)
        if number % 20 == 0:
            log.admission(Record("denied", "annotations", str(number), "quiet"), 0.001)
    lines = [json.loads(line) for line in written[1]()]
    assert [line["namespace"] for line in lines].count("loud") == log.ADMISSIONS
    assert [line["namespace"] for line in lines].count("quiet") == 50
    assert log.held_back - before == 1000 - log.ADMISSIONS
    now += log.PERIOD_SECONDS
    log.admission(Record("denied", "annotations", "", "loud"), 0.001)
    [line] = written[1]()
    assert json.loads(line)["heldBack"] == 1000 - log.ADMISSIONS


def test_made_up_namespaces_share_their_lines_and_are_counted(
    written: tuple[int, Lines], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = log.held_back
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    configure(written[0])
    count = 0
    for number in range(5000):
        log.admission(Record("unchanged", "kind", "1", f"{'x' * 1000}{number}" if number % 2 else f"{number}"), 0.001)
        count += len(written[1]())
    assert count == log.ADMISSIONS + log.KINDS - 1 + log.ADMISSIONS
    assert log.held_back - before == 5000 - count


def test_a_full_disk_is_counted_and_raises_nothing() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    configure(descriptor)
    before = log.dropped
    log.event(logging.INFO, "nobody reads this")
    os.close(descriptor)
    assert log.dropped == before + 1


def test_a_closed_descriptor_is_counted_and_raises_nothing() -> None:
    reading, writing = os.pipe()
    configure(writing)
    os.close(reading)
    os.close(writing)
    before = log.dropped
    log.event(logging.INFO, "nobody reads this")
    assert log.dropped == before + 1


def test_a_pipe_that_nobody_reads_blocks_nothing(written: tuple[int, Lines]) -> None:
    configure(written[0])
    before = log.dropped
    for _ in range(2000):
        log.event(logging.INFO, "x" * 500)
    assert log.dropped > before
    assert all(json.loads(line) for line in written[1]())


@pytest.mark.parametrize(("no_color", "expected"), [("", True), ("1", False)])
def test_a_terminal_gets_text_in_colour_unless_refused(
    monkeypatch: pytest.MonkeyPatch, no_color: str, expected: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_color)
    ours, theirs = os.openpty()
    configure(theirs)
    log.event(logging.WARNING, "look out", port="https")
    seen = os.read(ours, 4096).decode()
    os.close(ours)
    os.close(theirs)
    assert "look out port=https" in seen
    assert ("\x1b[" in seen) is expected
    assert "{" not in seen


def test_the_level_is_the_operator_s(written: tuple[int, Lines]) -> None:
    configure(written[0], LOG_LEVEL="warning")
    log.admission(Record("injected"), 0.001)
    log.event(logging.ERROR, "broken")
    assert [json.loads(line)["message"] for line in written[1]()] == ["broken"]
