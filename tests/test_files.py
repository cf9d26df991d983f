"""Files and folders: what is read of them, in which order, and what is said of those that can't be."""

from __future__ import annotations

from pathlib import Path

import pytest

from injector.command import files
from tests.terminal import COMMAND, on_terminal, piped


def test_a_folder_stands_for_the_manifests_below_it_by_name(tmp_path: Path) -> None:
    for name in ("b.yml", "a.yaml", "sub/c.json", "sub/.hidden/d.yaml", "README.md", "a.yaml.orig"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    found = [Path(file.name).relative_to(tmp_path).as_posix() for file in files.read([str(tmp_path)])]
    assert found == ["a.yaml", "b.yml", "sub/c.json"]
    assert [file.name for file in files.read([str(tmp_path / "README.md")])] == [str(tmp_path / "README.md")]


def test_a_folder_without_manifests_is_a_mistake(tmp_path: Path) -> None:
    done = piped("check", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{tmp_path}: error: there is no manifest in this folder (*.yaml, *.yml, *.json)\n")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file or directory"),
        (b"a: \xe9\n", "not UTF-8: invalid continuation byte at byte 3"),
        (b"a: 1\n---\nb: {\n", "did not find expected node content"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_of_it(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "it.yaml"
    if content is not None:
        path.write_bytes(content)
    (file,) = files.read([str(path)])
    assert file.documents == []
    assert problem in file.problem
    assert file.line == (4 if content and b"---" in content else None)


def test_separators_are_put_where_they_are_needed(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: 1\n--- # two\nb: 2")
    (tmp_path / "b.yaml").write_text("c: 3\n")
    documents = [document for file in files.read([str(tmp_path)]) for document in file.documents]
    joined = files.joined([(document, document.text) for document in documents])
    assert joined == "a: 1\n--- # two\nb: 2\n---\nc: 3\n"


def test_on_a_terminal_it_is_said_what_is_waited_for() -> None:
    code, seen = on_terminal([*COMMAND, "check"], b"kind: Pod\n\x04", b"Ctrl-D ends it")
    assert code == 0
    assert "reading a manifest from this terminal; Ctrl-D ends it" in seen
    assert "1 file, 1 object" in seen
