"""The README is true: its tables are the code's own, and its commands exist."""

import re
from pathlib import Path

import pytest

from injector import options
from injector.annotations import table as annotations
from injector.serving import metrics

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


def _options() -> str:
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    rows += [
        f"| `{option.variable}` | {f'`{option.default}`' if option.default else ''} | {option.meaning} |"
        for option in options.OPTIONS
    ]
    return "\n".join(rows)


def _metrics() -> str:
    rows = ["| metric | type | meaning |", "| --- | --- | --- |"]
    for family in sorted(metrics.registry.collect(), key=lambda family: family.name):
        if family.name.startswith("litestream_hook"):
            suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
            rows.append(f"| `{family.name}{suffix}` | {family.type} | {family.documentation} |")
    return "\n".join(rows)


@pytest.mark.parametrize(
    ("name", "table"), [("annotations", annotations.table), ("options", _options), ("metrics", _metrics)]
)
def test_the_tables_are_the_codes_own(name: str, table: object, request: pytest.FixtureRequest) -> None:
    assert callable(table)
    text = README.read_text()
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, rest = text.split(start)
    there, after = rest.split(end)
    expected = f"\n{table()}\n\n"
    if request.config.getoption("--update"):
        README.write_text(before + start + expected + end + after)
    else:
        assert there == expected, "run `make golden`"


def test_every_direct_dependency_has_its_line() -> None:
    project = (ROOT / "pyproject.toml").read_text().split("dependencies = [")[1].split("]")[0]
    table = README.read_text().split("## Dependencies")[1].split("## License")[0]
    named = {name.strip() for row in re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)[2:] for name in row.split(",")}
    assert named == set(re.findall(r'"([\w.-]+)[^"]*"', project))


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", README.read_text(), re.MULTILINE)) <= targets


def test_links_lead_to_files() -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text()):
        assert (ROOT / link).exists(), link
