"""Logs: one line an event, JSON in a cluster and readable text on a terminal, never more than 4 KiB."""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from injector.errors import escaped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from injector.admission.webhook import Record
    from injector.options import Options

ROOT: Final = "injector"
LINE_BYTES: Final = 4096  # PIPE_BUF: a pipe that polls as writable takes this much without blocking
VALUE_BYTES: Final = 512  # as JSON in ASCII; the longest name that Kubernetes has takes 253
MESSAGE_BYTES: Final = 1024
REPEATS: Final = 5  # lines of one kind in one period, where strangers can cause them at will
ADMISSIONS: Final = 100  # of one namespace, outcome and reason: more than controllers create, or try again
PERIOD_SECONDS: Final = 10.0
KINDS: Final = 256  # kinds of lines that are told apart in one period
NAME_CHARACTERS: Final = 63  # of a namespace
FRAMES: Final = 12
COLORS: Final = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}

_logger = logging.getLogger(ROOT)
_encode = json.JSONEncoder(default=str).encode
dropped = 0
"""Lines that nobody could take: the disk was full, or the reader of the pipe had stopped reading."""
held_back = 0
"""Lines like many others of the moment, which were left out."""


def admission(record: Record, seconds: float, *, why: str = "") -> None:
    """One line for one answered request.

    Args:
        record: what is known of it.
        seconds: how long the answer took.
        why: what a bad request was told.
    """
    if record.outcome == "bad-request":
        # Anyone who reaches the port can cause these, as fast as the network allows.
        level, message = logging.WARNING, "not an admission"
        kind, most, others = f"bad-request {record.reason}", REPEATS, ""
    else:
        level, message = logging.ERROR if record.outcome == "error" else logging.INFO, "admission"
        kind = f"admission {record.namespace[:NAME_CHARACTERS]} {record.outcome} {record.reason}"
        most, others = ADMISSIONS, f"admission {record.outcome}"
    if not _logger.isEnabledFor(level) or (held := _repeats.admitted(kind, most, others)) is None:
        return
    fields = {
        "uid": record.uid,
        "namespace": record.namespace,
        "name": record.name,
        "kind": record.kind,
        "operation": record.operation,
        "outcome": record.outcome,
        "reason": record.reason,
        "warnings": record.warnings,
        "dryRun": record.dry_run,
        "milliseconds": round(seconds * 1000, 3),
        **({"why": why} if record.outcome == "bad-request" else {}),
        **({"heldBack": held} if held else {}),
    }
    # As Logger.log does, which first looks for the line of code that calls it.
    line = logging.LogRecord(ROOT, level, "", 0, message, (), None)
    line.__dict__["fields"] = fields
    _logger.handle(line)


def event(level: int, message: str, *, repeats: str | None = None, **fields: str | float | None) -> None:
    """A line about the webhook itself: a sentence, and fields for machines to read.

    `repeats` names the kind of a line that strangers can cause at will: few of them are written.
    """
    _logger.log(level, "%s", message, extra={"fields": fields, "repeats": repeats})


def configure(options: Options, descriptor: int | None = None) -> None:
    """Send every logger's lines to standard error (or `descriptor`) in the format of the options.

    Lines of other packages, such as uvicorn's about requests that are not HTTP, come in the same format;
    of one kind of them at most five in ten seconds are written, then their number.
    """
    global _repeats  # noqa: PLW0603 (the process has one log)
    handler: logging.Handler = logging.NullHandler()
    # Without a standard error (`2>&-`), number 2 may be a socket by now.
    if descriptor is not None or sys.stderr is not None:
        target = sys.stderr.fileno() if descriptor is None else descriptor
        terminal = os.isatty(target)
        text = options.log_format == "text" or (options.log_format == "auto" and terminal)
        handler = LineHandler(target, Text(color=terminal and colored(os.environ)) if text else Json())
    _repeats = Repeats()
    handler.addFilter(_repeats)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    _logger.setLevel(options.log_level.upper())
    logging.captureWarnings(capture=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(max(logging.WARNING, _logger.level))


def colored(environment: Mapping[str, str]) -> bool:
    """Whether a terminal may be sent colours (https://no-color.org)."""
    return not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


class LineHandler(logging.Handler):
    """Writes lines to a file descriptor; what can't be written at once is counted and dropped.

    A log is worth less than an answer: neither a full disk nor a pipe that nobody empties may stop serving.
    """

    def __init__(self, descriptor: int, formatter: logging.Formatter) -> None:
        super().__init__()
        self.descriptor = descriptor
        self.setFormatter(formatter)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, or count it as dropped."""
        global dropped  # noqa: PLW0603 (a counter of the process, read by metrics)
        try:
            line = self.format(record).encode("utf-8", "backslashreplace")
            if len(line) >= LINE_BYTES:
                line = line[: LINE_BYTES - 5] + b" ..."
            ready = self._poll.poll(0)
            if not ready or not ready[0][1] & select.POLLOUT or os.write(self.descriptor, line + b"\n") == 0:
                dropped += 1
        except Exception:  # noqa: BLE001 (nothing that happens to a log line may reach a request)
            dropped += 1


class Repeats(logging.Filter):
    """Holds back lines that others can cause at will: all but the first few of a kind in a period.

    The first line of a later period says how many were held back (`heldBack`). Lines that name no kind (`repeats`),
    such as those of our own about certificates, are never held back.
    """

    def __init__(self) -> None:
        super().__init__()
        self._since = time.monotonic()
        self._seen: dict[str, int] = {}
        self._held: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """True if the line is to be written."""
        kind: str | None = getattr(record, "repeats", None)
        if kind is None:
            if record.name == ROOT or record.name.startswith(ROOT + "."):
                return True
            kind = f"{record.name} {record.msg!s:.12}"
        held = self.admitted(kind)
        if held:
            record.__dict__["fields"] = {**_fields(record), "heldBack": held}
        return held is not None

    def admitted(self, kind: str, most: int = REPEATS, others: str = "") -> int | None:
        """How many lines of a kind were held back before one that is to be written; None if that is held back, too.

        Args:
            kind: of the line.
            most: how many of the kind are written in a period.
            others: the kind that it shares once there are too many: a flood may make up namespaces.
        """
        global held_back  # noqa: PLW0603 (a counter of the process, read by metrics)
        now = time.monotonic()
        if now - self._since >= PERIOD_SECONDS:
            self._since, self._held, self._seen = now, self._later(), {}
        if kind not in self._seen and len(self._seen) >= KINDS:
            kind = others
        seen = self._seen[kind] = self._seen.get(kind, 0) + 1
        if seen > most:
            self._held[kind] = self._held.get(kind, 0) + 1
            held_back += 1
            return None
        return self._held.pop(kind, 0)

    def _later(self) -> dict[str, int]:
        """What a line of the next period tells: the most of these, where there are too many."""
        return dict(sorted(self._held.items(), key=lambda pair: pair[1], reverse=True)[:KINDS])


_repeats = Repeats()


class Json(logging.Formatter):
    """A line as one JSON object in ASCII: no character of a user can end it or hide in it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line = {
            "time": _moment(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            **{name: _cut(value) for name, value in _fields(record).items()},
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error"], line["trace"] = type(record.exc_info[1]).__name__, _trace(record.exc_info[1])
        return _encode(line)


class Text(logging.Formatter):
    """A line for eyes: time, level, message, then `field=value` for what is known."""

    def __init__(self, *, color: bool = False) -> None:
        super().__init__()
        self._color = color

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        level = f"{record.levelname:<7}"
        if self._color:
            level = f"\x1b[{COLORS.get(record.levelname, '0')}m{level}\x1b[0m"
        parts = [
            f"{_moment(record).astimezone():%H:%M:%S}",
            level,
            escaped(_message(record)),
            *(
                f"{name}={escaped(str(_cut(value)))}"
                for name, value in _fields(record).items()
                if value not in (None, "", False)
            ),
        ]
        if record.exc_info and record.exc_info[1] is not None:
            parts.append(f"error={type(record.exc_info[1]).__name__} trace={_trace(record.exc_info[1])}")
        return " ".join(parts)


def _moment(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return getattr(record, "fields", {})


def _message(record: logging.LogRecord) -> str:
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001 (another package's template and arguments may not fit each other)
        message = str(record.msg)
    if not record.name.startswith(ROOT):
        message = message.partition("\n")[0]  # what follows may be a traceback, which quotes values
    return str(_cut(message, MESSAGE_BYTES))


def _cut(value: object, limit: int = VALUE_BYTES) -> object:
    """A text shortened until it takes at most `limit` bytes as JSON; anything else as it is."""
    if not isinstance(value, str) or len(value) <= limit // 12:  # no character takes more than twelve
        return value
    short = value[:limit]
    while len(json.dumps(short)) > limit - 6:
        short = short[: len(short) * 3 // 4]
    return value if short == value else short + "…"


def _trace(error: BaseException) -> str:
    """Where an exception came from, without its message: that may quote a Pod."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return " > ".join(frames[-FRAMES:])
