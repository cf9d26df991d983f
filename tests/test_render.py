"""Values as text: as people write them, and read back as the same by kubectl's rules."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given

from injector import manifests
from injector.command import render
from tests.test_edit import VALUES

SCRIPT = "set -eu\n\necho done\n"


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, "a:\n- b: 1\n  c: |\n    set -eu\n\n    echo done\n- - x\n  - - z\n"),
        (2, "a:\n  - b: 1\n    c: |\n      set -eu\n\n      echo done\n  - - x\n    - - z\n"),
    ],
)
def test_a_mapping_is_written_as_people_do(step: int, expected: str) -> None:
    value = {"a": [{"b": 1, "c": SCRIPT}, ["x", ["z"]]]}
    assert render.pairs(value, 0, step) == expected
    assert manifests.parse(expected) == value


@given(value=VALUES)
@example(value={"\n\U00010000": "\n\U00010000 "})
@pytest.mark.parametrize("step", [0, 2])
def test_what_is_written_is_read_as_the_same(step: int, value: Any) -> None:
    for text in (
        f"k:{render.behind_key(value, 0, step)}\n",
        render.items([{"k": value}], 0, step).replace("- ", "  ", 1),
        f"{{k: {render.in_flow(value)}}}",
        render.as_yaml({"k": value}),
        render.as_json({"k": value}, "{}"),
    ):
        (document,) = manifests.read(text)
        assert manifests.as_text(document.value) == manifests.as_text({"k": value}), text


@pytest.mark.parametrize(
    "text", ["1", "1e3", "0755", "0x1f", "1_000", "yes", "y", "~", "null", "2026-01-31", "1:30", "="]
)
def test_text_that_looks_like_something_else_is_quoted(text: str) -> None:
    written = render.scalar(text, 0)
    assert manifests.parse(f"k: {written}") == {"k": text}
    assert written[0] in "'\"" or text in ("2026-01-31", "1:30", "=")
