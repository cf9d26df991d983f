"""Metrics: what Prometheus is told, in a registry of our own; no label takes a value from a user."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Metric, ProcessCollector
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from injector import __version__
from injector.admission import workload
from injector.serving import log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from injector.admission.webhook import Record

KINDS: Final = frozenset({"none", "Pod", *(kind for _, kind in workload.TEMPLATES)})
SOURCES: Final = ("mounted", "secret", "ephemeral")
LOOKUPS: Final = ("free", "taken", "unknown")
MICROSECONDS_TO_TIMEOUT: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
registry = CollectorRegistry()
ProcessCollector(registry=registry)

build = Info("litestream_hook_build", "Version of the webhook and of Python", registry=registry)
build.info({"version": __version__, "python": platform.python_version()})
ready = Gauge("litestream_hook_ready", "1 while /readyz answers 200", registry=registry)
requests = Counter(
    "litestream_hook_requests",
    "Answered requests to /mutate",
    ["kind", "outcome"],
    registry=registry,
)
denials = Counter("litestream_hook_denials", "Denied objects by reason", ["reason"], registry=registry)
warnings = Counter("litestream_hook_warnings", "Warnings sent with answers", registry=registry)
duration = Histogram(
    "litestream_hook_request_duration_seconds",
    "From the end of a request's headers to its answer",
    registry=registry,
    buckets=MICROSECONDS_TO_TIMEOUT,
)
certificate_expiry = Gauge(
    "litestream_hook_certificate_expiry_timestamp_seconds",
    "When the certificate being served ends, in seconds since 1970",
    registry=registry,
)
certificate_source = Gauge(
    "litestream_hook_certificate_source",
    "1 for where the certificate being served comes from",
    ["source"],
    registry=registry,
)
guard_lookups = Counter(
    "litestream_hook_guard_lookups",
    "Questions to the API about other writers of a replica",
    ["result"],
    registry=registry,
)
guard_duration = Histogram(
    "litestream_hook_guard_lookup_duration_seconds",
    "How long the API took to say who else writes a replica, waiting included",
    registry=registry,
    buckets=MICROSECONDS_TO_TIMEOUT,
)
defaults_sound = Gauge(
    "litestream_hook_defaults_last_reload_successful",
    "1 while the operator's file is used as it is, 0 while what it said before goes on because it is broken",
    registry=registry,
)
defaults_sound.set(1)
connections = Gauge("litestream_hook_connections", "Open connections, handshakes included", ["port"], registry=registry)
connections_ended = Counter(
    "litestream_hook_connections_ended",
    "Connections that the webhook ended before their client did, by reason",
    ["port", "reason"],
    registry=registry,
)


class _Lines(Collector):
    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "litestream_hook_log_lines_dropped", "Log lines that could not be written", value=log.dropped
        )
        yield CounterMetricFamily(
            "litestream_hook_log_lines_held_back",
            "Log lines left out, as many others were like them",
            value=log.held_back,
        )


registry.register(_Lines())
# What alerts wait for is there as 0 from the start: a counter that first shows as 1 is no increase to Prometheus.
for _kind in sorted(KINDS):
    requests.labels(_kind, "error")
for _result in LOOKUPS:
    guard_lookups.labels(_result)


def observe(record: Record, seconds: float) -> None:
    """Count one answered request to /mutate; `seconds` is how long the answer took."""
    kind = record.kind or "none"
    requests.labels(kind if kind in KINDS else "other", record.outcome).inc()
    duration.observe(seconds)
    if record.outcome in {"denied", "guarded"}:
        denials.labels(record.reason or "other").inc()
    if record.warnings:
        warnings.inc(record.warnings)


def guard_lookup(result: str, seconds: float) -> None:
    """Count one question to the API: `result` is one of LOOKUPS."""
    guard_lookups.labels(result).inc()
    guard_duration.observe(seconds)


def defaults_reloaded(sound: bool) -> None:  # noqa: FBT001 (told by its one caller)
    """Show whether the operator's file could be used when it changed."""
    defaults_sound.set(sound)


def certificate(source: str, not_after: datetime) -> None:
    """Show the certificate that is served: one of SOURCES, and its last moment."""
    certificate_expiry.set(not_after.timestamp())
    for known in SOURCES:
        certificate_source.labels(known).set(known == source)


def page() -> tuple[bytes, str]:
    """The registry in Prometheus' text format, and its content type."""
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4
