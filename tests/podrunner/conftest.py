"""Tests that run containers are skipped, with the reason, where the machine can't."""

from __future__ import annotations

import pytest

from tests.podrunner.machine import missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if (reason := missing()) is not None:
        for item in items:
            if item.get_closest_marker("containers"):
                item.add_marker(pytest.mark.skip(reason=reason))
