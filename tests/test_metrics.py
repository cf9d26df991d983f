"""Metrics: what is counted, and that nobody can make them many."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from prometheus_client.parser import text_string_to_metric_families

from injector.admission.webhook import Record
from injector.serving import log, metrics


def value(name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def test_a_request_is_counted_by_kind_and_outcome_and_timed() -> None:
    counted = value("litestream_hook_requests_total", kind="Pod", outcome="injected")
    timed = value("litestream_hook_request_duration_seconds_sum")
    metrics.observe(Record("injected", "patched", kind="Pod", warnings=3), 0.5)
    assert value("litestream_hook_requests_total", kind="Pod", outcome="injected") == counted + 1
    assert value("litestream_hook_request_duration_seconds_sum") == timed + 0.5


@pytest.mark.parametrize("outcome", ["denied", "guarded"])
def test_a_denial_is_counted_by_reason(outcome: str) -> None:
    before = value("litestream_hook_denials_total", reason="workload")
    metrics.observe(Record(outcome, "workload", kind="Pod"), 0.001)  # type: ignore[arg-type]
    assert value("litestream_hook_denials_total", reason="workload") == before + 1


def test_kinds_that_a_user_made_up_share_one_label() -> None:
    metrics.observe(Record("unchanged", "kind", kind="Widget"), 0.001)
    size = len(metrics.page()[0].splitlines())
    for number in range(1000):
        metrics.observe(Record("unchanged", "kind", kind=f"Widget{number}"), 0.001)
    assert len(metrics.page()[0].splitlines()) == size
    assert value("litestream_hook_requests_total", kind="other", outcome="unchanged") > 1000


def test_the_certificate_in_use_is_shown_with_its_source() -> None:
    metrics.certificate("mounted", datetime(2030, 1, 1, tzinfo=UTC))
    metrics.certificate("secret", datetime(2031, 1, 1, tzinfo=UTC))
    expected = datetime(2031, 1, 1, tzinfo=UTC).timestamp()
    assert value("litestream_hook_certificate_expiry_timestamp_seconds") == expected
    sources = {source: value("litestream_hook_certificate_source", source=source) for source in metrics.SOURCES}
    assert sources == {"mounted": 0, "secret": 1, "ephemeral": 0}


def test_the_guard_s_questions_are_counted_by_result() -> None:
    before = value("litestream_hook_guard_lookups_total", result="taken")
    metrics.guard_lookup("taken", 0.01)
    assert value("litestream_hook_guard_lookups_total", result="taken") == before + 1


def test_what_alerts_wait_for_is_there_before_it_happens() -> None:
    def there(name: str, **labels: str) -> bool:
        return metrics.registry.get_sample_value(name, labels) is not None

    for kind in metrics.KINDS:
        assert there("litestream_hook_requests_total", kind=kind, outcome="error")
    for result in metrics.LOOKUPS:
        assert there("litestream_hook_guard_lookups_total", result=result)


def test_lost_log_lines_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "dropped", 7)
    monkeypatch.setattr(log, "held_back", 8)
    assert value("litestream_hook_log_lines_dropped_total") == 7
    assert value("litestream_hook_log_lines_held_back_total") == 8


def test_the_page_is_what_prometheus_reads() -> None:
    page, content_type = metrics.page()
    names = {family.name for family in text_string_to_metric_families(page.decode())}
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert {"litestream_hook_requests", "litestream_hook_build_info", "process_open_fds"} <= names
    assert not [name for name in names if name.endswith("_created")]
