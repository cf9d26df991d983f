"""The README is one screen or two, and true."""

import re
from pathlib import Path

import pytest

from injector import cli

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_it_is_short() -> None:
    lines = README.splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 120] == []


def test_every_direct_dependency_has_its_line() -> None:
    project = (ROOT / "pyproject.toml").read_text().split("dependencies = [")[1].split("]")[0]
    table = README.split("## Dependencies")[1].split("## License")[0]
    named = {name.strip() for row in re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)[2:] for name in row.split(",")}
    assert named == set(re.findall(r'"([\w.-]+)[^"]*"', project))


def test_nothing_is_wrong_with_its_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    manifest = tmp_path / "app.yaml"
    manifest.write_text(example)
    assert (cli.main(["check", str(manifest)]), capsys.readouterr().out) == (0, "")
    assert cli.main(["inject", "--namespace", "NAMESPACE", str(manifest)]) == 0
    (replica,) = re.findall(r"The replica is at\s+`([^`]+)`", README)
    assert f'"path":"{replica}"' in capsys.readouterr().out
