"""The two ways in which what reaches us can be wrong: the call is bad, or the Pod is."""

from __future__ import annotations

from typing import NamedTuple

URLS = ("endpoint", "heartbeat-url")  # keys whose value is one


class Violation(NamedTuple):
    """One thing that is wrong with a Pod or workload, in the words its author reads.

    `field` is an annotation's full key or the path of a field (`spec.replicas`), `value` what stands
    there (None: nothing does), `expected` what would be right, with something to write.
    """

    field: str
    value: str | None
    expected: str

    def __str__(self) -> str:
        return f"{self.field}{'' if self.value is None else f': {quoted(self.value)}'}: {self.expected}"


class InvalidPod(Exception):
    """The Pod (or the workload) can't be injected: answered as a denial that lists every violation.

    `warnings` are the risks that were found beside them.
    """

    def __init__(self, violations: list[Violation], warnings: list[str] | None = None) -> None:
        super().__init__("; ".join(map(str, violations)))
        self.violations = violations
        self.warnings = warnings or []


class BadReview(Exception):
    """The call itself is not an AdmissionReview that can be answered: HTTP 400, in one sentence."""


class InvalidOptions(Exception):
    """The operator's options are wrong: every problem, one a line."""


def escaped(text: str) -> str:
    """A text without control characters: what is not printable stands escaped, as in Python."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)


def cut(text: str, limit: int = 120) -> str:
    """A user's text for a message, of at most `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def quoted(value: str, limit: int = 120) -> str:
    """A user's text for a message: in double quotes, control characters escaped, cut at `limit` characters."""
    short = cut(value, limit)
    plain = escaped(short)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"' if plain == short else '"' + plain + '"'


def without_credentials(name: str, value: str) -> str:
    """A value for a message: of a URL, all up to its last @ may be a password, and a query a signature."""
    before, at, host = value.rpartition("@")
    scheme, slashes, _ = before.partition("//")
    if at and (slashes or name in URLS):
        host = "…" if "?" in before else host  # what stands behind this @ may be of the query
        value = f"{scheme + slashes if scheme in ('http:', 'https:') else ''}…@{host}"
    address, mark, _ = value.partition("?")
    return f"{address}?…" if mark and name in URLS else value
