"""How the suite is run: fast tests first, and no test skipped in silence."""

import collections
import os
from pathlib import Path

import hypothesis
import pytest

from tests.podrunner import missing

# On a busy machine an example takes as long as it takes.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

SLOWNESS = ("slow", "containers", "apiserver")
# What CI may skip, as its machine can't have it. Everything else must run there; what is not installed can be.
OPTIONAL = (
    "KUBEBUILDER_ASSETS is not set",
    "has no kube-controller-manager",
    "need root",
    "needs root",
    "this machine does not allow mounts",
    "runc does not work here",
)

_skipped: dict[str, str] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="rewrite the golden files and the tables in docs/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first, then those that start processes, containers, an API server."""
    items.sort(
        key=lambda item: max((SLOWNESS.index(m.name) + 1 for m in item.iter_markers() if m.name in SLOWNESS), default=0)
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Containers are not tried where the machine can't run them; the reason is told instead."""
    if item.get_closest_marker("containers") and (reason := missing()) is not None:
        pytest.skip(reason)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what was skipped, here or in a process of pytest-xdist."""
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped[report.nodeid] = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts = collections.Counter(reason.removeprefix("Skipped: ") for reason in _skipped.values())
    lines = [
        f"{count} skipped{', which is a failure here' if _missed(reason) else ''}: {reason}"
        for reason, count in sorted(counts.items())
    ]
    terminalreporter.section("not run here")
    for line in lines or ["nothing: every test was run"]:
        terminalreporter.line(line)
    if "PARTS" in os.environ and not hasattr(terminalreporter.config, "workerinput"):
        with Path(os.environ["PARTS"]).open("a") as parts:
            parts.writelines(f"         {line}\n" for line in lines)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK and any(map(_missed, _skipped.values())):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _missed(reason: str) -> bool:
    """Whether a test was skipped that should have run: in CI all but what its machine can't have."""
    return bool(os.environ.get("CI")) and not any(known in reason for known in OPTIONAL)
