"""Each test plays a scenario and measures a row of the table in docs/durability.md.

`DURABILITY=full` plays them as often and in as many ways as that page says, and shows how far it is; with `--update`
(`make durability`) the table is rewritten if every scenario kept its promise. Each run ends with the table of
what it played.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.durability.stage import FULL, Row, Way
from tests.durability.table import PAGE, table, written
from tests.podrunner.s3 import S3

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "durability"
TICK_SECONDS = 1.0

_measured: dict[str, list[Row]] = {}  # by the test's node id
_order: list[str] = []  # of the tests; pytest-xdist may end them in another


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


def pytest_collection_finish(session: pytest.Session) -> None:
    _order.extend(item.nodeid for item in session.items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(ids: list[str]) -> None:
    _order[:] = ids


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown":
        for key, records in report.user_properties:
            if key == KEY and isinstance(records, list):
                _measured[report.nodeid] = [Row.of(record) for record in records]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    if not _measured or hasattr(config, "workerinput"):  # a process of pytest-xdist knows its own tests only
        return
    made = table([row for nodeid in sorted(_measured, key=_order.index) for row in _measured[nodeid]])
    terminalreporter.section("rows lost and kept")
    terminalreporter.line(made)
    whole = [Path(argument).resolve() for argument in config.args] == [Path(__file__).parent]
    if FULL and whole and exitstatus == pytest.ExitCode.OK and config.getoption("--update"):
        PAGE.write_text(written(PAGE.read_text(), made))
        terminalreporter.line(f"docs/{PAGE.name} has this table now")


class Progress:
    """Tells which scenarios begin and what they measured, and on a terminal how long it has been going on."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal, self._began, self._done = terminal, time.monotonic(), 0
        if terminal.isatty:
            threading.Thread(target=self._tick, daemon=True).start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._tell(nodeid.rpartition("::")[2])

    @pytest.hookimpl(trylast=True)  # after the rows have been taken from the report
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "teardown":
            return
        self._done += 1
        for row in _measured.get(report.nodeid, ()):
            self._tell(f"{row.scenario}, {'-'.join(row.way)}: {row.lost} of {row.acknowledged} lost")

    def _line(self, text: str) -> str:
        return f"{time.monotonic() - self._began:6.0f} s  {self._done}/{len(_order)}  {text}"

    def _tell(self, text: str) -> None:
        self._terminal.write_line(self._line(text))

    def _tick(self) -> None:
        while True:
            time.sleep(TICK_SECONDS)
            self._terminal.rewrite(self._line("..."), erase=True)
            self._terminal.flush()


@pytest.hookimpl(trylast=True)  # once there is a terminal reporter
def pytest_configure(config: pytest.Config) -> None:
    terminal = config.pluginmanager.getplugin("terminalreporter")
    if FULL and terminal is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Progress(terminal), "durability-progress")
