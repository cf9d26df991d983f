"""The operator's options: environment (or flags of the same names) → frozen Options, read once."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from injector import values
from injector.errors import InvalidOptions, quoted

DEFAULT_IMAGE = values.LITESTREAM_IMAGE
INIT_IMAGE = "docker.io/library/busybox:1.37"
PROXIES = (
    "istio-proxy",
    "linkerd-proxy",
    "kuma-sidecar",
    "consul-dataplane",
)


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its environment variable, default (as text), how its text is read, and what it means."""

    variable: str
    default: str
    read: Callable[[str], Any]
    meaning: str

    @property
    def flag(self) -> str:
        """The command-line flag of the same name: `CERT_DIR` → `--cert-dir`."""
        return "--" + self.variable.lower().replace("_", "-")

    @property
    def field(self) -> str:
        """The field of Options that holds the value: `CERT_DIR` → `cert_dir`."""
        return self.variable.lower()


def _text(value: str) -> str:
    return value


def _image(value: str) -> str:
    return values.image(value).reference


def _matching(pattern: str, right: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(right)
        return value

    return read


def _port(value: str) -> int:
    if not (value.isascii() and value.isdigit() and 0 <= int(value) <= 65535):
        raise ValueError("a port is a whole number from 0 (any free one) to 65535")
    return int(value)


def _address(value: str) -> tuple[str, int]:
    host, colon, port = value.rpartition(":")
    if not colon:
        raise ValueError("write HOST:PORT, such as 0.0.0.0:8080")
    return host.strip("[]") or "0.0.0.0", _port(port)  # noqa: S104 (an empty host means every interface)


def _uid(value: str) -> int | Literal["pod"] | None:
    if value == "pod":
        return "pod"
    try:
        return values.user_id(value) if value else None
    except ValueError as right:
        raise ValueError(f"{right}, or pod") from None


def _names(value: str) -> frozenset[str]:
    return frozenset(name.strip() for name in value.split(",") if name.strip())


def _prefix(value: str) -> str:
    if value and (not re.fullmatch(r"[A-Za-z0-9._/-]+", value) or "" in value.split("/") or ".." in value.split("/")):
        raise ValueError("write path segments such as my-cluster or eu/my-cluster, without a slash at either end")
    return value


def _proxy(value: str) -> str:
    if not value:
        return value
    try:
        if "@" not in value:
            return values.endpoint(value)
    except ValueError:
        pass
    raise ValueError("write a URL without credentials and path, such as http://proxy.example.com:3128")


_hosts = _matching(
    r"[A-Za-z0-9.:/_,*\[\]-]*", "write hosts, domains and networks, comma-separated, such as .svc,10.0.0.0/8"
)


OPTIONS = (
    Option(
        "VARIANT",
        "",
        _matching(r"([a-z0-9]([a-z0-9-]*[a-z0-9])?)?", "write a DNS label such as skaffold"),
        "prefix of the annotation group: skaffold → skaffold.litestream-hook.kaidotio.github.io/…",
    ),
    Option("HOST", "0.0.0.0", _text, "address that /mutate is served on"),  # noqa: S104
    Option("PORT", "9443", _port, "port that /mutate is served on"),
    Option("CERT_DIR", "/var/k8s-webhook-server/serving-certs", _text, "folder of a mounted tls.crt and tls.key"),
    Option(
        "CLIENT_CA_FILE",
        "",
        _text,
        "CA that callers' client certificates must chain to; empty: none is asked for",
    ),
    Option("METRICS_BIND_ADDRESS", "0.0.0.0:8080", _address, "HOST:PORT of /metrics"),
    Option("HEALTH_PROBE_BIND_ADDRESS", "0.0.0.0:8081", _address, "HOST:PORT of /healthz and /readyz"),
    Option("DEFAULT_IMAGE", DEFAULT_IMAGE, _image, "Litestream image of Pods that name none"),
    Option("INIT_IMAGE", INIT_IMAGE, _image, "image with a shell that writes the Litestream config"),
    Option(
        "DEFAULT_RUN_AS_USER",
        "",
        _uid,
        "user id of applications whose Pods name none; pod: each Pod is given one when it is made, as on OpenShift, "
        "so that templates pass without; empty: they are denied",
    ),
    Option("SKIP_CONTAINERS", ",".join(PROXIES), _names, "names of injected network proxies, comma-separated"),
    Option(
        "GUARD_ON_ERROR",
        "deny",
        values.one_of("deny", "allow"),
        "deny or allow a Pod when the API can't say who else writes its replica",
    ),
    Option("DEFAULTS_FILE", "", _text, "file with the operator's defaults for annotations, and what Pods may write"),
    Option(
        "NAMESPACE_DEFAULTS",
        "false",
        values.boolean,
        "true: annotations of a Namespace are defaults for its Pods",
    ),
    Option("REPLICA_PREFIX", "", _prefix, "first part of every replica path, such as the cluster's name"),
    Option(
        "LITESTREAM_HTTPS_PROXY",
        "",
        _proxy,
        "proxy that Litestream's containers ask for URLs with https (their HTTPS_PROXY)",
    ),
    Option("LITESTREAM_HTTP_PROXY", "", _proxy, "the same for URLs with http (HTTP_PROXY)"),
    Option(
        "LITESTREAM_NO_PROXY",
        "",
        _hosts,
        "hosts, domains and networks that they reach without a proxy, comma-separated (NO_PROXY)",
    ),
    Option("LOG_FORMAT", "auto", values.one_of("auto", "json", "text"), "auto: text on a terminal, JSON elsewhere"),
    Option(
        "LOG_LEVEL", "info", values.one_of("debug", "info", "warning", "error"), "least severe level that is logged"
    ),
    Option("POD_NAMESPACE", "litestream-hook", _text, "namespace that the webhook runs in"),
    Option(
        "SERVICE_NAME",
        "litestream-hook",
        _text,
        "Service in front of the webhook: the name in its certificate",
    ),
    Option(
        "TLS_SECRET_NAME",
        "litestream-hook-tls",
        _text,
        "Secret that replicas share a self-made certificate in",
    ),
    Option("WEBHOOK_CONFIGURATION_NAME", "litestream-hook", _text, "MutatingWebhookConfiguration that calls us"),
)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Options:
    """What the operator decided, one field an option (see OPTIONS for what each means)."""

    variant: str
    host: str
    port: int
    cert_dir: str
    client_ca_file: str
    metrics_bind_address: tuple[str, int]
    health_probe_bind_address: tuple[str, int]
    default_image: str
    init_image: str
    default_run_as_user: int | Literal["pod"] | None
    skip_containers: frozenset[str]
    guard_on_error: str
    defaults_file: str
    namespace_defaults: bool
    replica_prefix: str
    litestream_https_proxy: str
    litestream_http_proxy: str
    litestream_no_proxy: str
    log_format: str
    log_level: str
    pod_namespace: str
    service_name: str
    tls_secret_name: str
    webhook_configuration_name: str


def read(environment: Mapping[str, str]) -> Options:
    """Options from environment variables; absent ones have their default.

    Raises InvalidOptions with one line for every variable that is wrong.
    """
    values: dict[str, Any] = {}
    problems = []
    for option in OPTIONS:
        text = environment.get(option.variable, option.default)
        try:
            values[option.field] = option.read(text)
        except ValueError as right:
            problems.append(f"{option.variable}: {quoted(text)}: {right}")
    if problems:
        raise InvalidOptions("\n".join(problems))
    return Options(**values)


def add_flags(parser: argparse.ArgumentParser, variables: Collection[str] | None = None) -> None:
    """Gives a parser one flag an option (of those named; by default all); `read_flags` reads them."""
    group = parser.add_argument_group("the webhook's options", "Each has an environment variable; a flag wins over it.")
    for option in OPTIONS:
        if variables is None or option.variable in variables:
            text = f"{option.meaning} (environment: {option.variable}; default: {option.default or 'empty'})"
            group.add_argument(option.flag, dest=option.variable, metavar=option.variable, help=text.replace("%", "%%"))


def read_flags(flags: argparse.Namespace, environment: Mapping[str, str]) -> Options:
    """Options from flags, then the environment, then defaults.

    Raises InvalidOptions with one line for every option that is wrong, wherever it was given.
    """
    given = {option.variable: getattr(flags, option.variable, None) for option in OPTIONS}
    return read({**environment, **{variable: text for variable, text in given.items() if text is not None}})
