"""Replicas in each store that is not S3: Pods as the webhook makes them, with a real Litestream and a real server.

S3 has all the scenarios of tests/durability; here each other store has the one that matters, and what is said when
something of it is wrong.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from injector.command import restoring
from injector.pod import job
from injector.pod.containers import INIT, REPLICATE
from injector.pod.job import Asked
from injector.tls.certificate import make_ca
from tests import reviews
from tests.durability.stage import NATIVE_05, SCENARIO, Row, Stage, committed, end, file, rows, started
from tests.podrunner import BlockedPod
from tests.stores import azure, google, sftp
from tests.stores.azure import Azure
from tests.stores.google import Google
from tests.stores.sftp import Sftp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.stores.server import Store

pytestmark = SCENARIO
DATABASES = ("/data/a.db", "/data/b.db")
needs_azure = pytest.mark.skipif(azure.missing() is not None, reason=str(azure.missing()))
needs_sftp = pytest.mark.skipif(sftp.missing() is not None, reason=str(sftp.missing()))
STORES = [
    pytest.param(Azure, {}, id="azure", marks=needs_azure),
    pytest.param(Azure, {"auth": "session"}, id="azure-session", marks=needs_azure),
    pytest.param(Google, {}, id="google"),
    pytest.param(Sftp, {}, id="sftp", marks=needs_sftp),
]


@pytest.mark.parametrize(("kind", "annotations"), STORES)
def test_two_databases_come_back_each_with_its_own_rows(kind: Callable[[], Any], annotations: dict[str, str]) -> None:
    row = Row("two databases in a store", NATIVE_05)
    with kind() as store, Stage(NATIVE_05, store, databases=DATABASES, annotations=annotations) as stage:
        run = stage.start()
        started(run, row)
        committed(run, 100)
        promised = end(run, row)
        assert promised, "nothing was written"
        assert verified(stage) == dict.fromkeys(DATABASES)
        run = stage.start(writes=False)
        started(run, row)
        run.wait_log("app", "idle")
        even, odd = (rows(file(run, database)) for database in DATABASES)
        end(run, row)
    assert even == [number for number in promised if number % 2 == 0]
    assert odd == [number for number in promised if number % 2 == 1]


def verified(stage: Stage) -> dict[str, str | None]:
    """What is wrong with each database, by the Job that restores them (`litestream-hook verify`)."""
    source = job.source(reviews.injected(stage.pod(), options=stage.s3.options), stage.s3.options)
    made = job.job(source, Asked("verify", list(source.databases)), "verify", "default")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "verify"}, **made["spec"]["template"]}
    pod["metadata"] = {"name": "verify"}
    run = stage.node.start(pod)
    run.wait_ended()
    told, rest = restoring.read(run.logs(job.CONTAINER), list(source.databases))
    assert rest == ""
    return {one.path: one.why or one.failed or (None if one.tables else "nothing restored") for one in told}


@contextmanager
def blocked(store: Store, secret: dict[str, str] | None = None, **annotations: str) -> Iterator[str]:
    """The log of the init container that holds up a Pod."""
    with Stage(NATIVE_05, store, annotations={k.replace("_", "-"): v for k, v in annotations.items()}) as stage:
        stage.node.secrets["litestream-hook-secret"] = {**store.secret, **(secret or {})}
        run = stage.start()
        with pytest.raises(BlockedPod, match=INIT) as caught:
            run.wait_started()
        yield caught.value.log
        run.delete()


@needs_azure
def test_what_is_wrong_with_azure_is_told_before_the_application_starts() -> None:
    with Azure() as store:
        with blocked(store, {"AZURE_STORAGE_KEY": "YW5vdGhlcg=="}) as log:
            assert "RESPONSE 403" in log
            assert "ERROR CODE: AuthorizationFailure" in log
        with blocked(store, bucket="abs://account1/nowhere") as log:
            assert "RESPONSE 404" in log
            assert "bucket abs://account1/nowhere at https://127.0.0.1" in log
            assert "ERROR CODE: ContainerNotFound" in log
            assert "<?xml" not in log


@needs_azure
def test_an_unknown_ca_of_azure_s_server_is_told_within_seconds() -> None:
    with Azure() as store:
        store.config_maps = {"ca": {"ca.crt": make_ca("Another", datetime.now(UTC)).certificate.decode()}}
        with Stage(NATIVE_05, store) as stage:
            run = stage.start()
            log = run.wait_log(INIT, "Still asking", seconds=30)
            assert "x509: certificate signed by unknown authority" in log
            run.kill_node()


def test_what_is_wrong_with_google_is_told_before_the_application_starts() -> None:
    with Google() as store:
        with blocked(store, {"key.json": google.key_file(google.new_key())}) as log:
            assert "invalid_grant" in log
            assert "Invalid JWT Signature." in log
        assert store.tokens == 0
        with blocked(store, {"key.json": "{"}) as log:
            assert "error getting credentials using GOOGLE_APPLICATION_CREDENTIALS" in log
        with blocked(store, bucket="gs://nowhere") as log:
            assert "bucket gs://nowhere at https://storage.googleapis.com can't be read" in log
            assert "bucket doesn't exist" in log
        assert store.tokens > 0
        store.config_maps = {"ca": {"ca.crt": make_ca("Another", datetime.now(UTC)).certificate.decode()}}
        with blocked(store) as log:
            assert "x509: certificate signed by unknown authority" in log


@needs_sftp
def test_what_is_wrong_with_an_sftp_server_is_told_before_the_application_starts(tmp_path: Path) -> None:
    with Sftp() as store:
        other = sftp.make_key(tmp_path / "other")
        with blocked(store, {"ssh-privatekey": other.read_text()}) as log:
            assert "unable to authenticate" in log
        with blocked(store, host_key=other.with_suffix(".pub").read_text()) as log:
            assert "host key mismatch" in log


@needs_sftp
def test_a_directory_that_can_t_be_made_is_told_by_the_sidecar() -> None:
    """Litestream takes a directory that is not there for an empty one, until it uploads."""
    with Sftp() as store, Stage(NATIVE_05, store, annotations={"bucket": store.bucket("/proc/replicas")}) as stage:
        run = stage.start()
        run.wait_log(REPLICATE, "cannot make parent", seconds=60)
        run.kill_node()


@needs_sftp
@pytest.mark.parametrize("kinds", [sftp.KINDS, sftp.KINDS[1:], sftp.KINDS[2:]], ids=lambda kinds: kinds[0])
def test_litestream_is_shown_the_host_key_that_the_docs_say(kinds: tuple[str, ...]) -> None:
    with Sftp(kinds) as store, Stage(NATIVE_05, store) as stage:
        run = stage.start(writes=False)
        run.wait_started()
        run.delete()
        for kind in kinds[1:]:
            with blocked(store, host_key=store.host_key(kind)) as log:
                assert "host key mismatch" in log
