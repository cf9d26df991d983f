"""What a Pod's sidecar says of its databases, asked by exec: one call where its image has a shell (scripts/report.sh).

Whoever owns the Pod decides what it says, so nothing of it is taken for more than text.

Without a shell there is no `timeout` either, and a question to a bucket that is away would live on in the container for
minutes: then Litestream is asked for what it knows by itself, and no bucket.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import msgspec

from injector.command.kubectl import Answer, Kubectl
from injector.errors import cut, escaped
from injector.pod import litestream, scripts
from injector.pod.containers import REPLICATE
from injector.values import Object

Way = Literal["shell", "binary", "none"]
PATIENCE = 30.0  # seconds for a sidecar to answer; of these, a bucket has eight
UNANSWERED = 124  # exit code of what took too long
MOST_FAULTS = 10  # that a readiness probe tells beside one of each database
SILENT = "does not answer"
_PART = re.compile("^\x1e([a-z]+) ([0-9]{1,3})\n", re.MULTILINE)
_ROW = re.compile(r"0 +[0-9a-f]{16} +([0-9a-f]{16}) +[0-9]+ +\S+")
_FILE = re.compile(r"file [0-9a-f]{16}-([0-9a-f]{16})\.ltx ([0-9]{1,18})")
_NUMBER = re.compile(r"[0-9]{1,18}")
_VERSION = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){1,2}[0-9A-Za-z.+-]{0,40}")
_SAID = re.compile(r"^Error: |^litestream-hook: ")


class Database(NamedTuple):
    """What is known of one database; None where it is not.

    `position` and `replica_position` are Litestream's numbers of transactions (what `restore -txid` takes): the newest
    that it has seen in the database, `written` then, and in the replica. `age` is seconds since its last sync. `bucket`
    says what kept the replica from being looked at, empty if nothing did.
    """

    path: str
    size: int | None = None
    position: str | None = None
    written: float | None = None
    replica_position: str | None = None
    synced: datetime | None = None
    age: float | None = None
    bucket: str = ""


class Report(NamedTuple):
    """What a sidecar said: Litestream's version, what it says is wrong, and its databases."""

    version: str | None
    wrong: list[str]
    databases: list[Database]


class _Part(NamedTuple):
    code: int
    text: str


def way(container: Mapping[str, Any]) -> Way:
    """How a sidecar can be asked, by its own spec: Litestream before 0.5.8 has nothing to say."""
    words = [*(container.get("command") or []), *(container.get("args") or [])]
    if any(str(word).endswith("/sidecar.sh") for word in words):
        return "shell"
    alive = ((container.get("livenessProbe") or {}).get("exec") or {}).get("command") or []
    return "binary" if "info" in alive else "none"


def ask(kubectl: Kubectl, pod: str, namespace: str, databases: Sequence[str], by: Way) -> Report:
    """Ask a running sidecar.

    Args:
        kubectl: of the user.
        pod: its name.
        namespace: of the Pod.
        databases: their paths.
        by: how it can be asked, not `none`.

    Raises KubectlError where the user can't exec there.
    """
    if by == "shell":
        command = ["/bin/sh", "-c", scripts.read("report"), "report", *databases]
        answer = kubectl.execute(pod, REPLICATE, command, namespace=namespace, patience=PATIENCE)
        return read(answer.output.decode(errors="replace"), databases)
    parts = {}
    for word in ("info", "list"):
        command = [litestream.BINARY, word, "-json", "-timeout", "4", "-socket", litestream.SOCKET]
        answer = kubectl.execute(pod, REPLICATE, command, namespace=namespace, patience=PATIENCE)
        parts[word] = _Part(answer.code, _both(answer))
    return _report(list(parts.items()), databases)


def read(output: str, databases: Sequence[str]) -> Report:
    """The report in what the script wrote about these databases."""
    pieces = _PART.split(output)[1:]
    parts = [
        (name, _Part(int(code), text.strip()))
        for name, code, text in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True)
    ]
    return _report(parts, databases)


def _report(parts: Sequence[tuple[str, _Part]], databases: Sequence[str]) -> Report:
    once = dict(parts)
    each = {key: [part for name, part in parts if name == key] for key in ("size", "replica", "seen")}
    now = float(text) if _NUMBER.fullmatch(text := _text(once.get("now"))) else time.time()
    synced = _synced(_decoded(once.get("list")).get("databases"))
    wrong, silent = [], ""
    for word in ("info", "list"):
        if word in once and once[word].code:
            silent = f"Litestream does not answer: {_words(once[word].text)}"
            break
    ready = once.get("ready", _Part(0, ""))
    if ready.code == 1:
        lines = ready.text.splitlines()[: len(databases) + MOST_FAULTS]
        wrong += [_words(line) for line in lines if line]
    version = _decoded(once.get("info")).get("version")
    found = []
    for number, path in enumerate(databases):
        last = synced.get(path)
        mine = {key: parts[number] for key, parts in each.items() if number < len(parts)}
        size, seen = _text(mine.get("size")), _FILE.fullmatch(_text(mine.get("seen")))
        row = _ROW.fullmatch(_text(mine.get("replica")))
        found.append(
            Database(
                path,
                int(size) if _NUMBER.fullmatch(size) else None,
                seen[1] if seen else None,
                float(seen[2]) if seen else None,
                row[1] if row else None,
                last,
                None if last is None else max(0.0, now - last.timestamp()),
                _bucket(mine.get("replica")),
            )
        )
    # While its first sync waits for the bucket, Litestream answers no `list`.
    if silent and not any(database.bucket for database in found):
        wrong.append(silent)
    known = isinstance(version, str) and _VERSION.fullmatch(version)
    return Report(version if known else None, wrong, found)


def _bucket(part: _Part | None) -> str:
    """Why a replica could not be looked at."""
    if part is None or part.code == 0:
        return ""
    return SILENT if part.code == UNANSWERED else _words(part.text)


def _text(part: _Part | None) -> str:
    return "" if part is None or part.code else part.text


def _decoded(part: _Part | None) -> Object:
    try:
        return msgspec.json.decode(_text(part), type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return {}


def _synced(listed: object) -> dict[str, datetime]:
    """When each database was last synced, by what Litestream lists."""
    entries = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    found = {}
    for entry in entries:
        path, text = entry.get("path"), entry.get("last_sync_at")
        if isinstance(path, str) and isinstance(text, str):
            with contextlib.suppress(ValueError, OverflowError):
                found[path] = datetime.fromisoformat(text).astimezone(UTC)
    return found


def _both(answer: Answer) -> str:
    return answer.error if answer.code else answer.output.decode(errors="replace")


def _words(text: str) -> str:
    """What a program said, as a part of a sentence."""
    return escaped(cut(_SAID.sub("", " ".join(text.split())), 300))
