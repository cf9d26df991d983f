"""Grammars of annotation values: text → value, or ValueError with what would be right."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from injector.errors import quoted

# Litestream's ".NAME-litestream" beside the database, moved aside, must fit a file name of 255 bytes.
LONGEST_FILE_NAME = 255 - len("..-litestream.20261125T044105Z.999")
LONGEST_PATH = 1024
Object = dict[str, Any]  # a Kubernetes object (or a part of one) as it comes, so that fields we don't know survive
# One environment variable of a process can hold 128 KiB (Linux' MAX_ARG_STRLEN); Litestream's config is one.
LONGEST_CONFIG = 120 * 1024
MOST_NAMES = 500  # databases (their config has to fit an environment variable) or containers of one Pod
# S3 keys end at 1024 bytes; what Litestream appends ("/ltx/0/….ltx", "/generations/…") stays under 124.
LONGEST_REPLICA_PATH = 900
SYSTEM_DIRECTORIES = (
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/run/secrets", "/sbin", "/sys", "/usr",
    "/var/run/secrets",
)  # fmt: skip
# Where no volume helps: the kernel's, the tokens', and those of Litestream's own config and certificates.
CLOSED_DIRECTORIES = (
    "/dev", "/proc", "/sys", "/run/secrets", "/var/run/secrets", "/etc/litestream", "/etc/litestream-ca",
    "/etc/litestream-credentials",
)  # fmt: skip
FORBIDDEN = frozenset("$?#%")
SIDE_FILES = ("-wal", "-shm", "-journal")

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
LITESTREAM_IMAGE = "docker.io/litestream/litestream:0.5.17"  # the release that all of this was measured with
_SUBDOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_QUANTITY = re.compile(
    r"(?P<number>[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+))(?P<suffix>[KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,3})?"
)
_SUFFIXES = {
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(["n", "u", "m", "", *"kMGTPE"], -3)},
    **{suffix + "i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", 1)},
}
_LARGEST_QUANTITY = 2**63 - 1
_SECONDS = {
    "ns": "1e-9",
    "us": "1e-6",
    "µs": "1e-6",
    "μs": "1e-6",
    "ms": "1e-3",
    "s": "1",
    "m": "60",
    "h": "3600",
}
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_LONGEST_DURATION = 2**63 // 10**9
_TIME_OF_DAY = r"([01]\d|2[0-3]):[0-5]\d"
_TIMESTAMP = re.compile(rf"\d{{4}}-\d\d-\d\dT{_TIME_OF_DAY}:[0-5]\d(\.\d{{1,9}})?(Z|[+-]{_TIME_OF_DAY})", re.ASCII)
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST_LABEL = r"(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])"
_REFERENCE = re.compile(
    rf"(?P<name>(?:(?P<host>{_HOST_LABEL}(?:\.{_HOST_LABEL})*|\[[0-9a-fA-F:]+\])(?P<port>:[0-9]+)?/)?"
    rf"{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@sha256:[0-9a-f]{64}|@sha384:[0-9a-f]{96}|@sha512:[0-9a-f]{128})?"
)
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
PLACEHOLDERS = ("namespace", "kind", "workload", "pod", "node", "database")


class Image(NamedTuple):
    """An image reference as written, and its tag (None: it has none)."""

    reference: str
    tag: str | None


class Duration(NamedTuple):
    """A duration as Go (and so Litestream) writes it, and its length in seconds."""

    text: str
    seconds: Decimal


class Quantity(NamedTuple):
    """A Kubernetes quantity as written, and its amount in the base unit (bytes, cores)."""

    text: str
    amount: Decimal


def one_of(*choices: str) -> Callable[[str], str]:
    """A reader that takes these words only."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError("write " + " or ".join(f'"{choice}"' for choice in choices))
        return text

    return read


def boolean(text: str) -> bool:
    """`true` or `false`."""
    return one_of("true", "false")(text) == "true"


def quantity(text: str) -> Quantity:
    """A quantity by the grammar of k8s.io/apimachinery/pkg/api/resource, at most 2^63-1."""
    match = _QUANTITY.fullmatch(text) if len(text) <= 64 else None
    if not match:
        raise ValueError("write a Kubernetes quantity such as 1Gi or 500Mi")
    suffix = match["suffix"] or ""
    exponent = suffix[1:] if suffix[:1] in "eE" and len(suffix) > 1 and suffix != "Ei" else None
    scale = _SUFFIXES[suffix] if exponent is None else Decimal(10) ** int(exponent)
    amount = Decimal(match["number"]) * scale
    if not 0 < amount <= _LARGEST_QUANTITY:
        raise ValueError("write an amount above 0 and below 8Ei, such as 1Gi")
    return Quantity(text, amount)


def size(text: str) -> Quantity:
    """An amount of bytes, at least 1Mi: less is a slip of the unit (`500m` is half a byte)."""
    read = quantity(text)
    if read.amount < 1024**2:
        hint = f"; did you mean {text[:-1]}Mi?" if text[-1] in "mM" else ""
        raise ValueError(f"is less than 1Mi: write a size such as 1Gi or 500Mi{hint}")
    if read.amount != read.amount.to_integral_value():
        raise ValueError("is not a whole number of bytes: write a size such as 1536Mi")
    return read


def cpu(text: str) -> Quantity:
    """An amount of cores, from 1m to 1000."""
    read = quantity(text)
    if text.endswith("i") or not Decimal("0.001") <= read.amount <= 1000:
        raise ValueError("write cores, from 1m to 1000, such as 20m or 0.5")
    return read


def duration(text: str) -> Duration:
    """A duration above 0 by the grammar of Go's time.ParseDuration: `1s`, `1m30s`, `168h`."""
    parts = _DURATION_PART.findall(text) if len(text) <= 64 else []
    if not parts or "".join(number + unit for number, unit in parts) != text:
        days = re.fullmatch(r"([0-9]{1,4})d", text)
        hint = f" ({int(days[1]) * 24}h for {text})" if days else ""
        raise ValueError(f"write a duration in h, m, s or ms, such as 1s, 12h or 168h{hint}")
    seconds = sum((Decimal(number) * Decimal(_SECONDS[unit]) for number, unit in parts), Decimal())
    if not Decimal("0.001") <= seconds <= _LONGEST_DURATION:
        raise ValueError("write a duration of at least 1ms and at most 292 years, such as 1s")
    return Duration(text, seconds)


def user_id(text: str) -> int:
    """A uid or gid, from 0 to 2147483647 (Kubernetes' runAsUser, runAsGroup)."""
    if not re.fullmatch(r"0|[1-9][0-9]{0,9}", text) or int(text) >= 2**31:
        raise ValueError("write a number from 0 to 2147483647, such as 1000")
    return int(text)


def port(text: str) -> int:
    """A port that needs no privilege: from 1024 to 65535."""
    if not re.fullmatch(r"[1-9][0-9]{3,4}", text) or not 1024 <= int(text) <= 65535:
        raise ValueError("write a port from 1024 to 65535, such as 9090")
    return int(text)


def is_label(text: str) -> bool:
    """Whether the text is a DNS label (RFC 1123), as names of containers are."""
    return _LABEL.fullmatch(text) is not None


def object_name(text: str) -> str:
    """A name of a Kubernetes object: a DNS subdomain (RFC 1123) of at most 253 characters."""
    if len(text) > 253 or not _SUBDOMAIN.fullmatch(text):
        raise ValueError("write a name in lower case letters, digits, - and ., such as litestream-hook-secret")
    return text


def certificate_source(text: str) -> str:
    """The Secret or ConfigMap that holds certificates: `secret/NAME` or `configmap/NAME`."""
    kind, _, name = text.partition("/")
    if kind not in ("secret", "configmap") or len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
        raise ValueError("write secret/NAME or configmap/NAME, such as configmap/minio-ca")
    return text


def container_names(text: str) -> tuple[str, ...]:
    """Names of containers, comma-separated, each once."""
    if text.count(",") >= MOST_NAMES:
        raise ValueError(f"names more than {MOST_NAMES} containers: write fewer")
    names = tuple(name.strip() for name in text.split(","))
    wrong = [name for name in names if not is_label(name)]
    if wrong or len(set(names)) != len(names):
        raise ValueError("write the names of containers of this Pod, comma-separated, each once, such as app,worker")
    return names


def bucket(text: str) -> str:
    """A bucket's name by S3's rules for general purpose buckets."""
    plain = re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", text) and ".." not in text
    if not plain or re.fullmatch(r"[0-9]+(\.[0-9]+){3}", text):
        raise ValueError("write an S3 bucket name: 3 to 63 lower case letters, digits, - and ., such as my-bucket")
    return text


# Amazon's, without those whose files have to be thawed before they can be read; other servers have others.
STORAGE_CLASSES = (
    "EXPRESS_ONEZONE", "GLACIER_IR", "INTELLIGENT_TIERING", "ONEZONE_IA", "OUTPOSTS", "REDUCED_REDUNDANCY", "STANDARD",
    "STANDARD_IA",
)  # fmt: skip


def storage_class(text: str) -> str:
    """A storage class of S3, but none whose files have to be thawed before they can be read."""
    if not re.fullmatch(r"[A-Z][A-Z0-9_]{0,62}", text):
        raise ValueError("write a storage class such as STANDARD_IA or INTELLIGENT_TIERING")
    if text in ("GLACIER", "DEEP_ARCHIVE"):
        raise ValueError("can't be read at once, so no restore is possible from it: write GLACIER_IR, for instance")
    return text


def kms_key(text: str) -> str:
    """A key of AWS KMS: its id, ARN or alias."""
    if not re.fullmatch(r"[A-Za-z0-9:/_-]{1,2048}", text):
        raise ValueError("write the key's id, ARN or alias, such as alias/backups")
    return text


def region(text: str) -> str:
    """A region's name, as S3 servers have them: `us-east-1`, `auto`; Litestream 0.5 takes no other characters."""
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", text):
        raise ValueError("write a region such as us-east-1")
    return text


def endpoint(text: str) -> str:
    """The URL of an S3-compatible server: http or https, a host, maybe a port and a path, nothing else."""
    right = "write a URL such as https://minio.example.com:9000"
    if not re.fullmatch(r"[!#%&+,./0-9:;=?@A-Z\[\]_a-z~-]+", text) or len(text) > LONGEST_PATH:
        raise ValueError(right)
    try:
        url = urlsplit(text)
        host, number = url.hostname or "", url.port
    except ValueError:
        raise ValueError(right) from None
    if not text.startswith(("http://", "https://")) or not is_host(host) or number == 0 or url.netloc.endswith(":"):
        raise ValueError(right)
    if "@" in url.netloc:
        raise ValueError(f"must hold no credentials (they belong in the Secret): {right}")
    if url.query or url.fragment or text[-1] in "?#" or not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*/?", url.path):
        raise ValueError(f"must hold no query, fragment or special characters: {right}")
    if {".", ".."} & set(url.path.split("/")):
        raise ValueError(f"must have no . or .. in its path: {right}")
    return text


def is_host(host: str) -> bool:
    """Whether the text is an IP address or a host's name."""
    if ":" in host or re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True
    labels = host.removesuffix(".").split(".")
    return len(host) <= 253 and all(map(is_label, labels))


def image(text: str) -> Image:
    """An image reference by the grammar of github.com/distribution/reference."""
    match = _REFERENCE.fullmatch(text) if len(text) <= 512 else None
    if not match or len(match["name"]) > 255 or re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(f"write an image reference such as {LITESTREAM_IMAGE}")
    return Image(text, match["tag"])


def timestamp(text: str) -> str:
    """A point in time by RFC 3339, as Go's time.RFC3339 reads it."""
    right = "write a time such as 2026-01-31T12:00:00Z"
    if not _TIMESTAMP.fullmatch(text):
        raise ValueError(right)
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(right) from None
    return text


def database_paths(text: str) -> tuple[str, ...]:
    """Paths of databases, comma-separated; white space around a path is no part of it.

    Each is absolute and normal, lies in a directory of its own right (not `/`, not a system directory),
    and has no control character, no `$`, which Kubernetes would expand, and none of `?`, `#`, `%`, for which
    Litestream replicates another file, without a word. No two may share a file.
    """
    if text.count(",") >= MOST_NAMES:
        raise ValueError(f"names more than {MOST_NAMES} databases: write fewer")
    if len(text) > LONGEST_CONFIG:
        raise ValueError("names more databases than one Litestream config can hold: use fewer, or shorter paths")
    if (braces := next((found for found in re.findall(r"\{[^{}/]*+\}", text) if "," in found), None)) is not None:
        raise ValueError(f"{quoted(braces)} is a pattern: write each path, such as /data/a.db,/data/b.db")
    paths = tuple(path.strip() for path in text.split(","))
    problems = [f"{quoted(path)} {why}" for path in paths if (why := _wrong_path(path))]
    problems = problems or _wrong_pairs(paths)
    if problems:
        raise ValueError(f"{'; '.join(dict.fromkeys(problems))}: write absolute paths such as /data/app.db")
    return paths


def _wrong_path(path: str) -> str | None:
    parts = path.split("/")
    if not path.startswith("/") or path == "/":
        return "is not an absolute path of a file"
    if not set("*?[").isdisjoint(path):
        return "is a pattern, and would be taken for one file of that very name"
    if re.search(r"[\s;:|]/", path):
        return "looks like several paths, which a comma separates"
    if not path.isprintable() or not FORBIDDEN.isdisjoint(path):
        return "has a control character or one of $ ? # %"
    if any(part in ("", ".", "..") for part in parts[1:]):
        return "is not in its normal form (no //, no . or .., no / at the end)"
    if len(parts) == 2:
        return "lies directly under /, which can't be a volume"
    if len(path.encode()) > LONGEST_PATH or len(parts[-1].encode()) > LONGEST_FILE_NAME:
        return f"is too long (a path has at most {LONGEST_PATH} bytes, a file name {LONGEST_FILE_NAME})"
    directory = path.rpartition("/")[0]
    if directory in SYSTEM_DIRECTORIES:
        return f"lies in the system directory {directory}"
    if (closed := next((closed for closed in CLOSED_DIRECTORIES if path.startswith(closed + "/")), None)) is not None:
        return f"lies in {closed}, where no volume of an application's can be"
    return None


def system_directory(directory: str) -> str | None:
    """The system directory that a directory lies in: only a volume of the application's own may be there."""
    return next((system for system in SYSTEM_DIRECTORIES if directory.startswith(system + "/")), None)


def _wrong_pairs(paths: tuple[str, ...]) -> list[str]:
    if len(paths) == 1:
        return []
    known = set(paths)
    repeated = [f"{quoted(path)} is named twice" for path, times in Counter(paths).items() if times > 1]
    sides = [f"{quoted(path)} is a file that SQLite keeps for {quoted(owner)}" for owner in paths for side in SIDE_FILES
             if (path := owner + side) in known]  # fmt: skip
    inside = [f"{quoted(path)} lies inside {quoted(owner)}, which is a file" for path, owner in inside_another(known)]
    return sorted(repeated) + sides + inside


def inside_another(paths: Iterable[str]) -> list[tuple[str, str]]:
    """Of paths, those that lie inside another one or are the same, each with the nearest of these."""
    found: list[tuple[str, str]] = []
    around: list[str] = []  # each lies inside the one before
    for path in sorted(paths, key=lambda path: path.replace("/", "\0")):  # what is inside follows at once
        while around and path != around[-1] and not path.startswith(around[-1] + "/"):
            around.pop()
        if around:
            found.append((path, around[-1]))
        around.append(path)
    return found


def replica_template(text: str) -> str:
    """A template of a path in the bucket: relative and normal, with placeholders in braces."""
    names = _PLACEHOLDER.findall(text)
    unknown = [name for name in names if name not in PLACEHOLDERS]
    if unknown or "{" in (rest := _PLACEHOLDER.sub("x", text)) or "}" in rest:
        raise ValueError("write no other placeholders than " + ", ".join(f"{{{name}}}" for name in PLACEHOLDERS))
    if (why := wrong_replica_path(rest)) is not None:
        raise ValueError(f"{why}: write a path such as {{namespace}}/my-app/{{database}}")
    return text


def wrong_replica_path(path: str) -> str | None:
    """Why a path in the bucket is not one, or None: relative, normal, printable, at most 900 bytes."""
    if not path.isprintable() or "$" in path or "\\" in path or path != path.strip():
        return "has a control character, a $, a backslash or white space at an end"
    if not {"", ".", ".."}.isdisjoint(path.split("/")):
        return "must not start or end with /, nor have //, . or .. in it"
    if len(path.encode()) > LONGEST_REPLICA_PATH:
        return f"is longer than {LONGEST_REPLICA_PATH} bytes"
    return None
