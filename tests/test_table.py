"""The table of annotations: each has a name of its own and a default that it would accept."""

import re

import pytest

from injector import GROUP
from injector.annotations import table
from injector.annotations.table import ANNOTATIONS, BY_KEY, Annotation


def test_every_key_stands_once_and_can_be_one_of_kubernetes() -> None:
    assert len(BY_KEY) == len(ANNOTATIONS)
    for key in [*BY_KEY, table.STATUS, table.LABEL]:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", key), key
        assert len(key) <= 63, key
    assert table.STATUS not in BY_KEY


@pytest.mark.parametrize("row", [row for row in ANNOTATIONS if row.default is not None], ids=lambda row: row.key)
def test_a_default_is_a_value_that_a_user_may_write(row: Annotation) -> None:
    assert row.default is not None
    row.read(row.default)


@pytest.mark.parametrize("row", ANNOTATIONS, ids=lambda row: row.key)
def test_an_empty_value_is_refused_in_words(row: Annotation) -> None:
    with pytest.raises(ValueError, match=r"\w+ \S+"):
        row.read("")


def test_a_variant_has_a_group_of_its_own() -> None:
    assert (table.group(""), table.group("blue")) == (GROUP, f"blue.{GROUP}")


@pytest.mark.parametrize(
    ("word", "expected"),
    [("pth", "; did you mean path?"), ("qqqq", ""), ("replica_path", "; did you mean replica-path?")],
)
def test_a_misspelt_key_is_named(word: str, expected: str) -> None:
    assert table.similar(word, list(BY_KEY)) == expected


def test_the_operators_defaults_replace_the_tables_own() -> None:
    rows = table.table({"image": "mirror/litestream:0.5.17"}).splitlines()
    assert len(rows) == len(ANNOTATIONS) + 2
    (image,) = (row for row in rows if row.startswith("| `image` |"))
    assert "| `mirror/litestream:0.5.17` |" in image
    assert all(row.count(" | ") == 2 for row in rows[2:])
