"""What Litestream is told is what a real one of that release understands."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import threading
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from injector import GROUP, options
from injector.annotations import settings
from injector.annotations.findings import Findings
from injector.pod import litestream, volumes
from injector.tls.certificate import make_ca
from tests.podrunner import s3
from tests.podrunner.images import litestream_binary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from injector.annotations.settings import Settings

REPLICAS = {"/data/a.db": "shop/pod/web/data/a.db", '/data/b "c".db': "x"}
RELEASES = ("0.3.13", "0.5.17")


def asked(**own: str) -> Settings:
    keys = {key.replace("_", "-"): text for key, text in own.items()}
    findings = Findings(GROUP)
    found = settings.read({"inject": "true", **keys}, options.read({}), findings)
    assert findings.violations == []
    return found


@pytest.mark.slow
@pytest.mark.parametrize("release", RELEASES)
def test_litestream_reads_every_database_and_its_replica_in_the_config(release: str, tmp_path: Path) -> None:
    chosen = asked(image=f"litestream/litestream:{release}", endpoint="http://minio:9000", sync_interval="200ms")
    config = tmp_path / "litestream.yml"
    config.write_text(litestream.config(chosen, REPLICAS))
    command: list[str | Path] = [litestream_binary(release), "databases", "-config", config, "-no-expand-env"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert all(database in listed for database in REPLICAS), listed


@pytest.mark.slow
@pytest.mark.parametrize("release", RELEASES)
def test_litestream_has_every_flag_that_it_is_given(release: str, tmp_path: Path) -> None:
    """An unknown flag ends it with a usage message before anything else is done."""
    chosen = asked(
        image=f"litestream/litestream:{release}", restore_from="old", restore_timestamp="2026-01-01T00:00:00Z"
    )
    for arguments in (
        litestream.restore_arguments(chosen, "/data/a.db"),
        litestream.restore_from_arguments(chosen, "/data/a.db"),
        litestream.replicate_arguments(),
    ):
        done = subprocess.run(
            [litestream_binary(release), *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert done.returncode == 1
        assert "not defined" not in done.stderr
        assert "config file not found" in done.stderr + done.stdout


def test_a_shorter_interval_than_a_second_makes_litestream_look_as_often() -> None:
    (often,) = json.loads(litestream.config(asked(sync_interval="200ms"), {"/a": "b"}))["dbs"]
    (seldom,) = json.loads(litestream.config(asked(sync_interval="10s"), {"/a": "b"}))["dbs"]
    assert (often["monitor-interval"], "monitor-interval" in seldom) == ("200ms", False)


@pytest.mark.parametrize(
    ("tag", "asks", "checks"),
    [("0.3.13", False, False), ("0.5.7", False, False), ("0.5.8", True, False), ("0.5.10", True, True)],
)
def test_only_what_a_release_has_is_used(tag: str, asks: bool, checks: bool) -> None:
    chosen = asked(image=f"litestream/litestream:{tag}")
    assert (litestream.probe(chosen) is not None) is litestream.can_list(chosen) is asks
    assert ("-integrity-check" in litestream.restore_arguments(chosen, "/a")) is checks


@pytest.mark.parametrize(("restore", "fails"), [("required", True), ("if-exists", False)])
def test_a_missing_replica_is_an_error_only_where_one_is_required(restore: str, fails: bool) -> None:
    arguments = litestream.restore_arguments(asked(restore=restore), "/a")
    assert ("-if-replica-exists" not in arguments) is fails


@contextmanager
def bucket() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A stand-in for S3 that is empty and keeps nothing: its URL, and the method, URL and headers of each request.

    It is an HTTP proxy as well, for the names of hosts that are nowhere.
    """
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            seen.append({"method": self.command, "url": self.path, **{k.lower(): v for k, v in self.headers.items()}})
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
            self.send_response(200)
            self.send_header("ETag", '"0"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_HEAD = answer  # noqa: N815 (the names that http.server calls)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


def upload(folder: Path, **own: str) -> dict[str, str]:
    """The request by which a real Litestream stores the first file of a database."""
    database, config = folder / "app.db", folder / "litestream.yml"
    with closing(sqlite3.connect(database)) as writer:
        writer.execute("CREATE TABLE t (a)")
    with bucket() as (url, seen):
        chosen = asked(endpoint="http://s3.example.com", **own)
        config.write_text(litestream.config(chosen, {str(database): "a/b"}))
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"}
        command: list[str | Path] = [litestream_binary("0.5.17"), "replicate", "-once", "-config", config]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=60, env={"HTTP_PROXY": url, **keys}
        )
        (found,) = [request for request in seen if request["method"] == "PUT"] or [{"url": done.stdout + done.stderr}]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("addressing", "place"),
    [
        ({}, "http://s3.example.com/litestream/a/b/"),
        ({"addressing": "path"}, "http://s3.example.com/litestream/a/b/"),
        ({"addressing": "virtual"}, "http://litestream.s3.example.com/a/b/"),
    ],
)
def test_the_bucket_stands_where_the_server_wants_it(addressing: dict[str, str], place: str, tmp_path: Path) -> None:
    assert upload(tmp_path, **addressing)["url"].startswith(place)


@pytest.mark.slow
def test_a_server_that_knows_buckets_by_host_names_is_replicated_to_and_restored_from(tmp_path: Path) -> None:
    database, config, restored = (tmp_path / name for name in ("app.db", "litestream.yml", "restored.db"))
    with closing(sqlite3.connect(database)) as writer:
        writer.execute("CREATE TABLE t (a)")
    chosen = asked(endpoint=f"http://{s3.DOMAIN}", addressing="virtual")
    config.write_text(litestream.config(chosen, {str(database): "a/b"}))
    binary = litestream_binary("0.5.17")
    with s3.S3() as server:
        environment = {"HTTP_PROXY": server.endpoint, **server.secret}
        replicate: list[str | Path] = [binary, "replicate", "-once", "-config", config]
        restore: list[str | Path] = [binary, "restore", "-config", config, "-o", restored, database]
        for command in (replicate, restore):
            subprocess.run(command, check=True, capture_output=True, timeout=60, env=environment)
        assert [key.rpartition("/")[0] for key in server.list_keys("litestream")] == ["a/b/0000"]
    with closing(sqlite3.connect(restored)) as reader:
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (0,)


@pytest.mark.slow
def test_each_release_trusts_the_certificates_of_a_directory(tmp_path: Path) -> None:
    database, config, ours, others = (tmp_path / name for name in ("app.db", "litestream.yml", "ours", "others"))
    with s3.S3(tls=True) as server:
        for folder, certificate in ((ours, server.ca), (others, make_ca("another", datetime.now(UTC)).certificate)):
            folder.mkdir()
            (folder / "ca.crt").write_text(certificate if isinstance(certificate, str) else certificate.decode())
        for release, folder, code in (("0.5.17", ours, 0), ("0.3.13", ours, 0), ("0.3.13", others, 1)):
            chosen = asked(endpoint=server.endpoint, image=f"litestream/litestream:{release}")
            config.write_text(litestream.config(chosen, {str(database): "a/b"}))
            command: list[str | Path] = [litestream_binary(release), "restore", "-config", config]
            command += ["-if-replica-exists", database]
            directories = ":".join([*volumes.CERTIFICATE_DIRECTORIES[:-1], str(folder)])
            environment = {"SSL_CERT_DIR": directories, **server.secret}
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
            assert (done.returncode, "x509" in done.stdout + done.stderr) == (code, code == 1), (release, done)


def test_amazon_is_addressed_by_path_only_if_that_is_asked_for() -> None:
    for own, style in (({}, None), ({"addressing": "path"}, True), ({"addressing": "virtual"}, False)):
        config = json.loads(litestream.config(asked(**own), {"/a": "b"}))
        assert config["dbs"][0]["replicas"][0].get("force-path-style") is style


@pytest.mark.slow
def test_class_and_key_of_the_files_reach_the_server(tmp_path: Path) -> None:
    found = upload(tmp_path, storage_class="STANDARD_IA", sse_kms_key_id="alias/backups")
    assert found["x-amz-storage-class"] == "STANDARD_IA"
    assert found["x-amz-server-side-encryption"] == "aws:kms"
    assert found["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/backups"


@pytest.mark.slow
def test_litestream_signs_with_the_token_of_a_session(tmp_path: Path) -> None:
    assert upload(tmp_path)["x-amz-security-token"] == "token"
