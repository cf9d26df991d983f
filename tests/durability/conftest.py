"""Each test plays a scenario and measures a row of the README's table.

`DURABILITY=full` plays them as often and in as many ways as the README says, and shows how far it is; with `--update`
(`make durability`) the README's table is rewritten if every scenario kept its promise. Each run ends with the table of
what it played.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.durability.stage import FULL, Row, Way
from tests.durability.table import README, table, written
from tests.podrunner.s3 import S3

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "durability"
TICK_SECONDS = 1.0

_measured: list[Row] = []


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """One S3 server for all scenarios; each has a workload of its own."""
    with S3() as server:
        yield server


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Iterator[Callable[[str, Way], Row]]:
    """Makes a row of the table for a scenario and a way."""
    made: list[Row] = []

    def row(scenario: str, way: Way) -> Row:
        made.append(Row(scenario, way))
        return made[-1]

    yield row
    request.node.user_properties.append((KEY, [row.record() for row in made]))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown":
        for key, records in report.user_properties:
            if key == KEY and isinstance(records, list):
                _measured.extend(Row.of(record) for record in records)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    if not _measured:
        return
    made = table(_measured)
    terminalreporter.section("rows lost and kept")
    terminalreporter.line(made)
    if FULL and exitstatus == pytest.ExitCode.OK and config.getoption("--update"):
        README.write_text(written(README.read_text(), made))
        terminalreporter.line("README.md has this table now")


class Progress:
    """Tells what is played, how far that is, and for how long it has been going on."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal, self._began = terminal, time.monotonic()
        self._total = self._done = self._shown = 0
        self._over = threading.Event()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._total = len(session.items)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._done += 1
        self._shown = len(_measured)
        over = threading.Event()
        ticking = threading.Thread(target=self._tick, args=(item.name, over), daemon=True)
        if self._terminal.isatty:
            ticking.start()
        else:
            self._terminal.write_line(self._line(item.name))
        result = yield
        over.set()
        if ticking.is_alive():
            ticking.join()
        for row in _measured[self._shown :]:
            name = f"{row.scenario}, {'-'.join(row.way)}"
            self._terminal.write_line(self._line(f"{name}: {row.lost} of {row.acknowledged} lost"))
        return result

    def _line(self, text: str) -> str:
        return f"{time.monotonic() - self._began:6.0f} s  {self._done}/{self._total}  {text}"

    def _tick(self, name: str, over: threading.Event) -> None:
        while not over.wait(TICK_SECONDS):
            self._terminal.rewrite(self._line(name)[:100], erase=True)
            self._terminal.flush()
        self._terminal.rewrite("", erase=True)


@pytest.hookimpl(trylast=True)  # once there is a terminal reporter
def pytest_configure(config: pytest.Config) -> None:
    terminal = config.pluginmanager.getplugin("terminalreporter")
    if FULL and terminal is not None:
        config.pluginmanager.register(Progress(terminal), "durability-progress")
