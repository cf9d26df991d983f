"""Files, folders and standard input, read into documents."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from injector import manifests
from injector.manifests import Document

SUFFIXES = (".yaml", ".yml", ".json")
STANDARD_INPUT = "standard input"


class File(NamedTuple):
    """One file, by the name that its findings have, and its documents; or why (and where) it can't be read."""

    name: str
    documents: list[Document]
    problem: str = ""
    line: int | None = None


def read(names: Sequence[str]) -> Iterator[File]:
    """Each file as it is read; of a folder all files below it whose names say that they are manifests, by name.

    Args:
        names: of files and folders; - is standard input, and so is no name at all.
    """
    for name in names or ["-"]:
        if name != "-" and Path(name).is_dir():
            inside = list(_below(name))
            yield from map(_read, inside)
            if not inside:
                yield File(
                    name, [], f"there is no manifest in this folder ({', '.join(f'*{each}' for each in SUFFIXES)})"
                )
        else:
            yield _read(name)


def _below(folder: str) -> Iterator[str]:
    for at, folders, files in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        yield from (str(Path(at, each)) for each in sorted(files) if each.endswith(SUFFIXES))


def _read(name: str) -> File:
    shown = STANDARD_INPUT if name == "-" else name
    if name == "-" and sys.stdin.isatty():
        print("reading a manifest from this terminal; Ctrl-D ends it", file=sys.stderr)
    try:
        text = (sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()).decode()
        return File(shown, manifests.read(text))
    except OSError as error:
        return File(shown, [], error.strerror or str(error))
    except UnicodeDecodeError as error:
        return File(shown, [], f"not UTF-8: {error.reason} at byte {error.start}")
    except manifests.UnreadableManifest as error:
        return File(shown, [], str(error), error.line)


def joined(documents: Sequence[tuple[Document, str]]) -> str:
    """Documents with the text that each has now, as one stream; a separator is put where there is none but needed."""
    output: list[str] = []
    for document, text in documents:
        end = "" if text.endswith("\n") else "\n"
        output += [document.separator or ("---\n" if output else ""), text, end]
    return "".join(output)
