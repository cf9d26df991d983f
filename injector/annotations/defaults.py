"""What holds in one namespace before a Pod says anything: its defaults, from far to near, and the operator's policy.

Built-in → the operator's options → the operator's file → the Namespace's annotations → the Pod's own; the nearest wins.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from injector import stores
from injector.annotations.findings import Findings
from injector.annotations.table import BY_KEY
from injector.errors import quoted
from injector.values import Duration, Image, Quantity

LIMITED = ("endpoint", "bucket", "image", "secret", "ca", "replica-path")  # what patterns of `allow` can be given for
PLACEHOLDER = re.compile(r"\{namespace\}")
_WILDCARD = re.compile(r"(\*\*|\*|\{namespace\})")
_BUCKET_IN_HOST = re.compile(r"https?://[^/]+\.(s3[.-][^/]*amazonaws\.com(\.cn)?|storage\.googleapis\.com)")


class Default(NamedTuple):
    """A value that the Pod did not write itself, and where it comes from, in words."""

    text: str
    origin: str


@dataclass(frozen=True)
class Defaults:
    """What holds in one namespace.

    `operator` are the values of the operator's file there, `used` those and the Namespace's, the nearest of each.
    `enforce` are the keys that nobody else may change, `allow` the patterns that a key's value has to fit.
    `warnings` are what is wrong with the Namespace's keys. `litestream` are keys of
    Litestream's config. `settled`: an earlier call has used these values as they are.
    """

    namespace: str = ""
    operator: Mapping[str, str] = field(default_factory=dict)
    used: Mapping[str, Default] = field(default_factory=dict)
    enforce: frozenset[str] = frozenset()
    allow: Mapping[str, Sequence[str]] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    litestream: Mapping[str, Any] = field(default_factory=dict)
    settled: bool = False

    def recorded(self, texts: Mapping[str, str]) -> Defaults:
        """The same with the values that an earlier call has used: they stay, whatever has changed since."""
        origin = "the defaults when this Pod was injected first"
        return replace(self, used={key: Default(text, origin) for key, text in texts.items()}, settled=True)

    def fitting(self, own: Mapping[str, str]) -> Defaults:
        """The same without values of another store than the one that a Pod's own annotations choose.

        An `endpoint` is one of the bucket that is given beside it: with a bucket of another kind it means nothing.
        """
        if stores.SPECIAL_KEYS.isdisjoint(self.used):
            return self
        default = self.used.get("bucket", Default(BY_KEY["bucket"].default or "", "")).text
        theirs, mine = stores.kind(default), stores.kind(own.get("bucket", default))
        keys = stores.STORES[mine].keys
        strange = stores.SPECIAL_KEYS - (keys if mine == theirs or self.settled else keys & {"ca"})
        return replace(self, used={key: default for key, default in self.used.items() if key not in strange})

    def under(self, own: Mapping[str, str]) -> dict[str, str]:
        """The texts that are used beside a Pod's own."""
        return {key: default.text for key, default in self.used.items() if key not in own}

    def sources(self) -> dict[str, str]:
        """Where the value of each key comes from that a Pod does not write, and what it may write instead, in words."""
        told = {}
        for key in BY_KEY:
            patterns = " or ".join(
                f"`{each.replace('{namespace}', self.namespace)}`" for each in self.allow.get(key, ())
            )
            notes = ["enforced"] * (key in self.enforce) + [f"allowed: {patterns}"] * bool(patterns)
            origin = self.used[key].origin if key in self.used else "built in" if key != "inject" else ""
            told[key] = "; ".join([origin, *notes])
        return told

    def check_enforced(
        self, keys: Collection[str], texts: Mapping[str, str], built_in: Mapping[str, str | None], findings: Findings
    ) -> None:
        """Whatever of the enforced keys is not as the operator has it is a violation.

        Args:
            keys: of those enforced, the ones to look at.
            texts: the values in use, where somebody wrote one.
            built_in: those that the table and the operator's options give.
            findings: takes the violations.
        """
        for key in sorted(keys):
            found, wanted = (layer.get(key, built_in.get(key)) for layer in (texts, self.operator))
            if found != wanted and (found is None or wanted is None or normal(key, found) != normal(key, wanted)):
                what = "there is none" if wanted is None else f"it is {quoted(wanted)}"
                findings.deny(key, found, f"is for the operator to choose, and {what} here: remove the annotation")

    def check_allowed(self, key: str, text: str, findings: Findings, *, given: str | None) -> bool:
        """Whether a value fits one of the operator's patterns, if there are any; if not, that is a violation.

        Args:
            key: one of LIMITED, or one that is held to the same patterns.
            text: the value in use.
            findings: takes the violation.
            given: the value as it is written; None where nobody wrote one.
        """
        patterns = self.allow.get({"init-image": "image", "restore-from": "replica-path"}.get(key, key))
        if patterns is None or self._fits(key, text, patterns):
            return True
        choice = " or ".join(pattern.replace("{namespace}", self.namespace) for pattern in patterns)
        findings.deny(key, given, f"is not what the operator allows in namespace {self.namespace}: write {choice}")
        return False

    def _fits(self, key: str, text: str, patterns: Sequence[str]) -> bool:
        value = str(normal(key, text))
        return any(expression(key, pattern, self.namespace).fullmatch(value) for pattern in patterns)

    def check_server(self, endpoint: str, findings: Findings) -> None:
        """An endpoint of the Pod's own with a bucket in it would lead around the operator's limits of bucket and path.

        S3 takes an endpoint's path, and the first part of Amazon's and Google's host names, for the bucket.
        """
        limited = [key for key in ("bucket", "replica-path") if key in self.allow or key in self.enforce]
        if not limited or {"endpoint"} & {*self.allow, *self.enforce} or endpoint == self.operator.get("endpoint"):
            return
        plain = _endpoint(endpoint)
        if _BUCKET_IN_HOST.match(plain) or "/" in plain.partition("://")[2]:
            what = " and ".join(limited)
            findings.deny(
                "endpoint", endpoint, f"names more than a server, and the operator limits {what}: write its host alone"
            )


NONE = Defaults()


@functools.lru_cache(maxsize=1024)
def expression(key: str, pattern: str, namespace: str | None) -> re.Pattern[str]:
    """A pattern as a regular expression: `*` stands for anything but a /, `**` for anything.

    `{namespace}` stands for the namespace, or where it is None for any.
    """
    if key == "bucket":
        pattern = pattern.removeprefix("s3://")
    if key in ("endpoint", "image", "init-image") and not pattern.startswith("*"):
        pattern = (_endpoint if key == "endpoint" else _image)(pattern)
    meaning = {"**": ".*", "*": "[^/]*", "{namespace}": "[^/]*" if namespace is None else re.escape(namespace)}
    parts = [meaning.get(part) or re.escape(part) for part in _WILDCARD.split(pattern)]
    return re.compile("".join(parts), re.DOTALL)


def normal(key: str, text: str) -> Any:  # noqa: ANN401 (whatever the table reads)
    """A value in the one form that all its spellings share; of a text that is none, the text itself."""
    try:
        read = BY_KEY[key].read(text)
    except ValueError:
        return text
    if isinstance(read, Image):
        return _image(read.reference)
    if isinstance(read, Quantity):
        return read.amount
    if isinstance(read, Duration):
        return read.seconds
    return _endpoint(text) if key == "endpoint" else read


def _endpoint(text: str) -> str:
    """A URL (or a pattern of one) in lower case, without a default port, a last dot of the host, a / at the end."""
    scheme, slashes, rest = text.partition("://")
    authority, slash, path = rest.partition("/")
    match = re.fullmatch(r"(\[.*\]|[^:]*)(?::0*([^:]+))?", authority.lower())
    if match is None:
        return text
    host, port = match[1].removesuffix("."), match[2]
    if host.startswith("[") and "*" not in host:
        host = f"[{ipaddress.ip_address(host[1:-1])}]"
    port = "" if port in (None, {"https": "443", "http": "80"}.get(scheme)) else f":{port}"
    return f"{scheme}{slashes}{host}{port}{slash}{path}".rstrip("/")


def _image(text: str) -> str:
    """An image reference (or a pattern of one) with its registry, as container runtimes complete it."""
    first, slash, rest = text.partition("/")
    if not slash:
        return f"docker.io/library/{text}"
    if first in ("docker.io", "index.docker.io"):
        return f"docker.io/{rest}" if "/" in rest else f"docker.io/library/{rest}"
    return text if "." in first or ":" in first or first == "localhost" else f"docker.io/{text}"
