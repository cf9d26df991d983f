"""Documents edited in place: what is wanted is said exactly, and no byte changes that need not."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from injector import manifests, options
from injector.command.edit import written
from injector.command.examine import beside, examine
from tests.test_golden import INPUTS

DEFAULTS = options.read({})


def edited(text: str, wanted: Any, *, in_place: bool = True) -> str:
    """The text of the one document that says what is wanted."""
    (document,) = manifests.read(text)
    result, kept = written(document, wanted)
    assert kept is in_place
    (again,) = manifests.read(result)
    assert manifests.as_text(again.value) == manifests.as_text(wanted)
    return result


@pytest.mark.parametrize(
    ("text", "wanted", "expected"),
    [
        ("a: 1 # one\n", {"a": 1, "b": 2}, "a: 1 # one\nb: 2\n"),
        ("a: 1", {"a": 1, "b": 2}, "a: 1\nb: 2"),
        ("a:  1   # one\nb: 2\n", {"a": "x", "b": 2}, "a: x   # one\nb: 2\n"),
        ("a:\n  b: 1\n# end\n", {"a": {"b": 1, "c": [1]}}, "a:\n  b: 1\n  c:\n  - 1\n# end\n"),
        ("a:\n  - 1\n", {"a": [1, 2]}, "a:\n  - 1\n  - 2\n"),
        ("a:\n- 1\n", {"a": [1], "b": [{"c": 1, "d": [2]}]}, "a:\n- 1\nb:\n- c: 1\n  d:\n  - 2\n"),
        ("a:\n  - 1\n", {"a": [1], "b": [{"c": 1, "d": [2]}]}, "a:\n  - 1\nb:\n  - c: 1\n    d:\n      - 2\n"),
        ("a:\n  # two\n  - {name: two}\n", {"a": [{"name": "one"}, {"name": "two"}]},
         "a:\n  - name: one\n  # two\n  - {name: two}\n"),
        ("a:\n- name: x # it\n  b: 1\n- name: y\n", {"a": [{"name": "x", "b": 1, "c": 2}, {"name": "y"}]},
         "a:\n- name: x # it\n  b: 1\n  c: 2\n- name: y\n"),
        ("a: {b: 1} # flow\n", {"a": {"b": 1, "c": ["x, y", "1"]}}, "a: {b: 1, c: ['x, y', '1']} # flow\n"),
        ("a: [1, 3]\n", {"a": [1, 2, 3, 4]}, "a: [1, 2, 3, 4]\n"),
        ("a: []\nb: {}\n", {"a": [1], "b": {"c": 1}}, "a:\n- 1\nb:\n  c: 1\n"),
        ("a:\nb: ~\n", {"a": {"c": 1}, "b": "x"}, "a:\n  c: 1\nb: x\n"),
        ("a: |\n  text\n\n# end\n", {"a": "text\n", "b": 1}, "a: |\n  text\n\nb: 1\n# end\n"),
        ("a: |\n  text\nb: 1\n", {"a": "x\ny", "b": 1}, "a: |-\n  x\n  y\nb: 1\n"),
        ("- -1\n- - 2\n", [0, -1, 1, [2]], "- 0\n- -1\n- 1\n- - 2\n"),
        ("a: 1\nb: 2 # two\nc: 3\n", {"a": 1, "c": 3}, "a: 1\nc: 3\n"),
        ("x: &x {a: 1}\ny: *x # y\n", {"x": {"a": 1}, "y": {"a": 1}, "z": 1}, "x: &x {a: 1}\ny: *x # y\nz: 1\n"),
        ("x: &x {a: 1}\ny:\n- *x\n", {"x": {"a": 1}, "y": [{"a": 1}, 2]}, "x: &x {a: 1}\ny:\n- *x\n- 2\n"),
        ("x: &x {a: 1}\ny: {<<: *x}\n", {"x": {"a": 1}, "y": {"a": 2}}, "x: &x {a: 1}\ny: {<<: *x, a: 2}\n"),
        ("x: &x {a: 1}\ny: {<<: *x}\n", {"x": {"a": 1}, "y": {}}, "x: &x {a: 1}\ny: {}\n"),
        ("- &x a\n- *x\n", ["a", "a", "b"], "- &x a\n- *x\n- b\n"),
        ("a: [x, y] # z\n", {"a": ["x", "z"]}, "a: [x, z] # z\n"),
        ("a:\n- |\n  x\n- y\n", {"a": ["z", "y"]}, "a:\n- z\n- y\n"),
        ("%YAML 1.1\n", None, "%YAML 1.1\n"),
        ("a: \U0001f600 # ü\nb: [1]\n", {"a": "\U0001f600", "b": [1, 2]}, "a: \U0001f600 # ü\nb: [1, 2]\n"),
        ("a: x\n", {"a": "x", "b": "yes", "c": "1e3", "d": "y", "e": "", "f": "a: b", "on": None},
         "a: x\nb: 'yes'\nc: '1e3'\nd: 'y'\ne: ''\nf: 'a: b'\n'on': null\n"),
    ],
)  # fmt: skip
def test_new_text_is_put_where_it_belongs(text: str, wanted: Any, expected: str) -> None:
    assert edited(text, wanted) == expected


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("x: &x {a: 1}\ny: *x\n", {"x": {"a": 2}, "y": {"a": 1}}),
        ("x: &x {a: 1}\ny: *x\n", {"x": {"a": 1}, "y": {"a": 2}}),
        ("x: &x {a: 1, b: 2}\ny: {<<: *x}\n", {"x": {"a": 1, "b": 2}, "y": {"a": 1}}),
        ("a: [1, 2]\n", {"a": [2, 1]}),
        ("a: {b: 1, c: 2}\n", {"a": {"b": 1}}),
        ("- a: 1\n  b: 2\n", [{"b": 2}]),
        ("a: 1\n", {"a": True}),
        ("a: 1\n", [1]),
        ("a: [[]]\n", {"a": [[None]]}),
    ],
)
def test_what_no_edit_says_is_written_anew(text: str, wanted: Any) -> None:
    edited(text, wanted, in_place=False)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}',
        '{"a":1,"b":[]}\n',
        '{\n  "a": 1\n}\n',
        '{\n\t"a": "\u00e9"\n}',
        '[\n    {\n        "a": 1\n    }\n]\n\n',
        '{\r\n  "a": 1\r\n}\r\n',
    ],
)
def test_json_stays_json_as_it_was_spaced(text: str) -> None:
    (document,) = manifests.read(text)
    wanted = copy.deepcopy(document.value)
    (wanted if isinstance(wanted, dict) else wanted[0])["a"] = 2
    result, kept = written(document, wanted)
    assert (kept, result) == (True, text.replace("1", "2", 1).replace('"\u00e9"', "2"))


def test_a_key_that_is_there_twice_is_refused_in_json_as_in_yaml() -> None:
    with pytest.raises(manifests.UnreadableManifest, match="there twice"):
        manifests.read('{"a": 1, "a": 2}')


CHANGED = ("terminationGracePeriodSeconds:", "schedulingGates:", "- name: litestream-hook.kaidotio.github.io/injected")


@pytest.mark.parametrize("path", [path for path in INPUTS if "workload" not in path.stem], ids=lambda path: path.stem)
@pytest.mark.parametrize("ends", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_an_injection_leaves_every_line_that_was_there(path: Path, ends: str) -> None:
    """But for the grace period, which it raises, and the scheduling gate, which it takes out."""
    text = path.read_text()
    for document in manifests.read(text.replace("\n", ends)):
        after = examine(str(path), document, "default", DEFAULTS, beside([], DEFAULTS), injecting=True).after
        result, kept = written(document, after)
        assert kept
        lines = iter(result.split(ends))
        kept_lines = [line for line in document.text.split(ends) if not line.strip().startswith(CHANGED)]
        gone = [line for line in kept_lines if line not in lines]
        assert gone == []
        assert ends == "\n" or re.search(r"(?<!\r)\n", result) is None


SCALARS = (
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=8) | st.sampled_from(["a\nb\n", "x: y", "- 1"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def filled(value: Any) -> bool:
    return isinstance(value, (dict, list)) and bool(value)


@pytest.mark.slow
@given(before=st.dictionaries(st.text(max_size=4), VALUES, min_size=1), more=VALUES, flow=st.booleans(), data=st.data())
def test_whatever_stood_there_and_is_wanted_is_said_exactly(
    before: dict[str, Any], more: Any, flow: bool, data: st.DataObject
) -> None:
    """In place or not: a document is never made to say something else."""
    text = yaml.safe_dump(before, default_flow_style=flow, allow_unicode=True, sort_keys=False)
    (document,) = manifests.read(text)
    wanted = copy.deepcopy(document.value)
    place: Any = wanted
    while filled(place):
        step: Any = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
        what = data.draw(st.sampled_from(["in", "replace", "add", "remove"]))
        if what == "in" and filled(place[step]):
            place = place[step]
            continue
        if what == "remove":
            del place[step]
        elif what == "add" and isinstance(place, list):
            place.insert(step, more)
        else:
            place["new" if what == "add" else step] = more
        break
    result, _ = written(document, wanted)
    assert manifests.as_text(manifests.parse(result)) == manifests.as_text(wanted)


def test_what_a_mapping_says_itself_wins_over_what_it_merges() -> None:
    text = "x: &x {a: 1, b: 2}\ny: &y {<<: *x, a: 3}\nz: {<<: [*y, *x], c: 4}\nw: *y\n"
    said = manifests.parse(text)
    assert (said["y"], said["z"], said["w"]) == ({"a": 3, "b": 2}, {"a": 3, "b": 2, "c": 4}, {"a": 3, "b": 2})


def test_keys_that_are_numbers_stay() -> None:
    (document,) = manifests.read("data: {8080: a, name: b, 1.5: c}\nother: 1\n")
    result, _ = written(document, {**document.value, "other": 2})
    assert result == "data: {8080: a, name: b, 1.5: c}\nother: 2\n"
