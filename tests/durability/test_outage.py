"""An S3 server that is away, or refuses, costs no row that can be kept; a Pod waits rather than start empty."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from injector.pod.containers import INIT, REPLICATE
from injector.tls.certificate import make_ca
from tests.durability.stage import (
    APPLICATION,
    CONTAINER_05,
    FIRST_RESTORE,
    GRACE_SECONDS,
    NATIVE_03,
    NATIVE_05,
    SCENARIO,
    SECRET,
    UNSENT,
    Row,
    Stage,
    Way,
    away,
    began,
    committed,
    end,
    lives,
    started,
    unbroken,
    volume,
    ways,
    write,
)
from tests.podrunner import BlockedPod
from tests.podrunner.proxy import Proxy
from tests.podrunner.s3 import S3
from tests.podrunner.writer import acknowledged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.podrunner import Run

pytestmark = SCENARIO
OUTAGE_SECONDS = 20
SYNCED = 300  # rows, at 100 a second, of which the first have surely been synced
WAITS = f"{INIT}|{FIRST_RESTORE}"  # which asks S3 first
MANY = 1000  # failures of an init container that a test bears with


@ways(NATIVE_05)
def test_an_outage_in_the_middle_of_a_life_costs_no_row(s3: S3, way: Way, measure: Callable[[str, Way], Row]) -> None:
    row = measure(f"S3 is away for {OUTAGE_SECONDS} s in the middle, deleted right after that", way)
    with Stage(way, s3) as stage:
        run = stage.start()
        write(run, row, SYNCED)
        with away(s3):
            time.sleep(OUTAGE_SECONDS)
        assert all(container.lives == 1 for container in run.containers.values()), "the outage restarted a container"
        promised = end(run, row)
        assert len(promised) > 100 * OUTAGE_SECONDS / 2, "the outage held up the application"
        row.count(promised, unbroken(stage.restored(row)))
    assert row.lost == 0, row


@ways(NATIVE_05, NATIVE_03)
def test_a_pod_waits_for_an_s3_server_that_is_away_and_then_has_every_row(
    s3: S3, way: Way, measure: Callable[[str, Way], Row]
) -> None:
    row = measure("S3 is away when the Pod starts, for 5 s", way)
    with Stage(way, s3) as stage:
        promised = lives(stage, row, 1)
        with away(s3):
            run = stage.start()
            with pytest.raises((TimeoutError, BlockedPod)):
                run.wait_started(5, failures=MANY)
            assert run.containers["app"].lives == 0
        started(run, row, failures=MANY)
        assert began(run) == promised[-1]
        row.count(end(run, row), unbroken(stage.restored(row)))
    assert row.lost == 0, row


@ways(NATIVE_03)
def test_rows_that_can_t_be_sent_before_the_volume_is_gone_are_the_only_ones_lost(
    s3: S3, way: Way, measure: Callable[[str, Way], Row]
) -> None:
    row = measure("S3 is away from 1 s before the deletion, on empty volumes", way)
    with Stage(way, s3) as stage:
        run = stage.start()
        first = write(run, row, SYNCED)
        before = acknowledged(run.logs(APPLICATION))[-1]
        with away(s3):
            committed(run, first + SYNCED + 100)
            promised = end(run, row)
        assert told_to_end(run) < GRACE_SECONDS + 1, "what is left of the grace period is too short for the final sync"
        row.count(promised, unbroken(stage.restored(row)))
    assert row.restored >= before - UNSENT, row


@ways(NATIVE_05)
def test_rows_are_kept_if_s3_is_back_before_the_grace_period_is_over(
    s3: S3, way: Way, measure: Callable[[str, Way], Row]
) -> None:
    row = measure("the network to S3 is away when the Pod is deleted, and back 10 s later, on empty volumes", way)
    with Proxy(s3.port) as proxy, Stage(way, s3) as stage:
        stage.annotations["endpoint"] = proxy.endpoint
        run = stage.start()
        first = write(run, row, SYNCED)
        proxy.swallow = True
        committed(run, first + SYNCED + 100)
        row.count(end_in_the_dark(run, row, proxy), unbroken(stage.restored(row)))
    assert row.restored > 0
    assert row.lost == 0 or way.litestream == "0.3.13", row


@ways(NATIVE_05, CONTAINER_05)
def test_a_database_that_litestream_could_not_look_at_yet_is_kept_too(
    s3: S3, way: Way, measure: Callable[[str, Way], Row]
) -> None:
    """Its final sync leaves that one out, so the preStop hook waits for it, where Litestream can be asked."""
    row = measure("the network to S3 is away from the first row until 10 s after the deletion, on empty volumes", way)
    with Proxy(s3.port) as proxy, Stage(way, s3) as stage:
        stage.annotations["endpoint"] = proxy.endpoint
        run = stage.start()
        started(run, row)
        proxy.swallow = True
        committed(run, 100)
        row.count(end_in_the_dark(run, row, proxy), unbroken(stage.restored(row)))
    assert row.lost == 0 or way.litestream == "0.3.13", row


def end_in_the_dark(run: Run, row: Row, proxy: Proxy) -> list[int]:
    """Delete the Pod; the network to S3, which is away, is back 10 s later. The rows its application was promised."""
    with ThreadPoolExecutor(1) as deleting:
        promised = deleting.submit(end, run, row)
        time.sleep(10)
        proxy.swallow = False
    return promised.result()


@ways(NATIVE_05)
def test_rows_that_could_not_be_sent_are_sent_in_the_next_life_on_the_same_volume(
    s3: S3, way: Way, tmp_path: Path, measure: Callable[[str, Way], Row]
) -> None:
    row = measure("S3 is away when the Pod ends on a PersistentVolumeClaim, made again on that and on another", way)
    with Stage(way, s3, claim=volume(tmp_path)) as stage:
        run = stage.start()
        first = write(run, row, SYNCED)
        with away(s3):
            committed(run, first + SYNCED + 100)
            promised = end(run, row)
        assert told_to_end(run) < GRACE_SECONDS + 1, "what is left of the grace period is too short for the final sync"
        assert lives_on(stage, row) == promised[-1]
        row.count(promised, unbroken(stage.restored(row)))
    assert row.lost == 0, row


def told_to_end(run: Run) -> float:
    """Seconds from the Pod's deletion until Litestream was told to end."""
    began = next(event.at for event in run.events if event.what.startswith("ends"))
    told = (event.at for event in run.events if event.container == REPLICATE and event.what.startswith("SIGTERM"))
    return next(told) - began


def lives_on(stage: Stage, row: Row) -> int:
    """One short life; the row that it began after."""
    run = stage.start()
    first = write(run, row, 10)
    end(run, row)
    return first


@ways(NATIVE_05, NATIVE_03)
def test_wrong_credentials_hold_up_the_pod_until_they_are_right(
    s3: S3, way: Way, measure: Callable[[str, Way], Row]
) -> None:
    row = measure("the Secret becomes wrong, and right again", way)
    with Stage(way, s3) as stage:
        promised = lives(stage, row, 1)
        stage.node.secrets[SECRET] = {**s3.secret, "AWS_SECRET_ACCESS_KEY": "wrong"}
        run = stage.start()
        with pytest.raises(BlockedPod, match=WAITS) as blocked:
            run.wait_started()
        assert "SignatureDoesNotMatch" in blocked.value.log
        assert run.containers["app"].lives == 0
        run.delete()
        stage.node.secrets[SECRET] = s3.secret
        assert lives_on(stage, row) == promised[-1]
        row.count(promised, unbroken(stage.restored(row)))
    assert row.lost == 0, row


@ways(NATIVE_05, NATIVE_03)
def test_a_pod_waits_for_its_bucket(s3: S3, way: Way, measure: Callable[[str, Way], Row]) -> None:
    row = measure("the bucket is missing, and appears later", way)
    with Stage(way, s3) as stage:
        bucket = f"late-{stage.name}"
        stage.annotations["bucket"] = bucket
        run = stage.start()
        with pytest.raises(BlockedPod, match=WAITS) as blocked:
            run.wait_started()
        assert "NoSuchBucket" in blocked.value.log
        assert run.containers["app"].lives == 0
        s3.create_bucket(bucket)
        started(run, row, failures=MANY)
        write(run, row, 100)
        row.count(end(run, row), unbroken(stage.restored(row)))
    assert row.lost == 0, row


@ways(NATIVE_05, NATIVE_03)
def test_a_required_restore_without_a_replica_holds_up_the_pod_and_its_log_says_why(s3: S3, way: Way) -> None:
    with Stage(way, s3, annotations={"restore": "required"}) as stage:
        run = stage.start()
        with pytest.raises(BlockedPod, match=FIRST_RESTORE) as blocked:
            run.wait_started()
        assert "no matching backup" in blocked.value.log
        assert run.containers["app"].lives == 0


@ways(NATIVE_05, every=(NATIVE_05, CONTAINER_05))  # in a Pod of 0.3 nobody asks before the restore
def test_a_pod_waits_for_the_right_ca_of_its_s3_server_and_its_log_says_why(way: Way) -> None:
    row = Row("S3 has a CA of its own", way)
    with S3(tls=True) as s3, Stage(way, s3, annotations={"ca": "configmap/s3-ca"}) as stage:
        other = make_ca("another one", datetime.now(UTC)).certificate.decode()
        stage.node.config_maps["s3-ca"] = {"ca.crt": other}
        run = stage.start()
        run.wait_log(INIT, "x509: certificate signed by unknown authority")
        assert run.containers["app"].lives == 0
        run.delete()
        stage.node.config_maps["s3-ca"] = {"ca.crt": s3.ca}
        run = stage.start()
        write(run, row, 100)
        row.count(end(run, row), unbroken(stage.restored(row)))
    assert row.lost == 0, row
