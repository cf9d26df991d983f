"""Keys of Litestream's config that the operator may add for all Pods: it ignores what it does not know, in silence."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from injector import values
from injector.errors import quoted, without_credentials

MOST_LEVELS = 8  # Litestream keeps snapshots on the ninth
PART_BYTES = range(5 * 1024**2, 5 * 1024**3 + 1)  # that S3 takes for a part
_UNITS = {"MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30}


class LitestreamOption(NamedTuple):
    """One key: where in the config it stands, since which release, how its value is read, and what it means."""

    key: str  # of a mapping in a mapping: `retention.enabled`
    place: Literal["top", "database", "s3"]
    since: tuple[int, int, int]
    read: Callable[[Any], object]  # of a text; of `levels`, of a list
    meaning: str


def _duration(text: str) -> str:
    return values.duration(text).text


def _levels(value: object) -> list[dict[str, str]]:
    right = f"write a list of 1 to {MOST_LEVELS} intervals, such as [{{interval: 30s}}, {{interval: 5m}}]"
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_LEVELS:
        raise ValueError(right)
    if not all(isinstance(level, dict) and level.keys() == {"interval"} for level in value):
        raise ValueError(right)
    return [{"interval": _duration(str(level["interval"]))} for level in value]


def _count(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"0|[1-9][0-9]{0,9}", text) or not least <= int(text) <= most:
            raise ValueError(f"write a number from {least} to {most}")
        return int(text)

    return read


def _bytes(text: str) -> str:
    match = re.fullmatch(r"([1-9][0-9]{0,3})(MB|MiB|GB|GiB)", text)
    if match is None or int(match[1]) * _UNITS[match[2]] not in PART_BYTES:
        raise ValueError("write an amount of at least 5MiB and at most 5GiB, such as 16MiB")
    return text


def _url(text: str) -> str:
    try:
        return values.endpoint(text)
    except ValueError:
        raise ValueError("write a URL without credentials and query, such as https://hc.example.com/ping") from None


LITESTREAM_OPTIONS = (
    LitestreamOption("levels", "top", (0, 5, 0), _levels,
                     "how often files of one level are put together on the next one"),
    LitestreamOption("retention.enabled", "top", (0, 5, 8), values.boolean,
                     "`false`: Litestream deletes nothing in the bucket, whose own rules have to"),
    LitestreamOption("heartbeat-url", "top", (0, 5, 6), _url,
                     "asked every five minutes by each Pod whose databases are all synced"),
    LitestreamOption("logging.type", "top", (0, 3, 5), values.one_of("text", "json"),
                     "format of Litestream's log: `text` or `json`"),
    LitestreamOption("checkpoint-interval", "database", (0, 3, 5), _duration,
                     "after what time the WAL is put into the database, whatever its size"),
    LitestreamOption("min-checkpoint-page-count", "database", (0, 3, 5), _count(1, 10**6),
                     "pages of the WAL from which on it is put into the database"),
    LitestreamOption("truncate-page-n", "database", (0, 5, 3), _count(1, 10**9),
                     "pages of the WAL from which on it is emptied, while writers wait"),
    LitestreamOption("busy-timeout", "database", (0, 5, 0), _duration, "how long Litestream waits for a lock"),
    LitestreamOption("part-size", "s3", (0, 5, 3), _bytes, "size of the parts of an upload to S3"),
    LitestreamOption("concurrency", "s3", (0, 5, 3), _count(1, 64), "parts of an upload to S3 at a time"),
)  # fmt: skip
BY_KEY = {option.key: option for option in LITESTREAM_OPTIONS}


def read(found: Mapping[str, Any], problems: list[str], place: str) -> dict[str, Any]:
    """The values of a mapping of the operator's file, by their keys.

    Args:
        found: texts, lists and mappings, written as in Litestream's config.
        problems: takes what is wrong, one line each.
        place: where the mapping stands in the file.
    """
    result: dict[str, Any] = {}
    seen: set[str] = set()
    for key, value in _flat(found):
        if (option := BY_KEY.get(key)) is None:
            problems.append(f"{place}.{quoted(key)[1:-1]}: is none of {', '.join(BY_KEY)}")
            continue
        if key in seen:
            problems.append(f"{place}.{key}: is there twice: write it once")
            continue
        seen.add(key)
        try:
            if not isinstance(value, str) and option.read is not _levels:
                raise ValueError("write one value")
            result[key] = option.read(value)
        except ValueError as right:
            if isinstance(value, str):
                shown = quoted(without_credentials(key, value))
            else:
                shown = "nothing" if value is None else "a list or mapping"
            problems.append(f"{place}.{key}: {shown}: {right}")
    return result


def _flat(found: Mapping[str, Any], outer: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in found.items():
        if isinstance(value, dict) and not outer:
            yield from _flat(value, f"{key}.")
        else:
            yield outer + key, value


def table() -> str:
    """The keys as a Markdown table, for docs/operating.md."""
    rows = [
        f"| `{key}` | {'.'.join(map(str, since)) if since > (0, 3, 5) else ''} | {meaning} |"
        for key, _, since, _, meaning in LITESTREAM_OPTIONS
    ]
    return "\n".join(["| key | since | meaning |", "| --- | --- | --- |", *rows])
