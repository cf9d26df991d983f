"""Replicas in an S3 server, made by a real Litestream on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
from typing import TYPE_CHECKING, Any

from tests.podrunner.images import litestream_binary
from tests.podrunner.s3 import REGION

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.podrunner.s3 import S3

RELEASE = "0.5.17"


class Writer:
    """A database in a folder, and its replica at a path of an S3 server's bucket `litestream`."""

    def __init__(self, folder: Path, s3: S3, replica: str, **settings: Any) -> None:
        self.database, self._config = folder / "app.db", folder / "litestream.yml"
        bucket = {"type": "s3", "bucket": "litestream", "region": REGION, "endpoint": s3.endpoint}
        place = {**bucket, "path": replica, "force-path-style": True, "sync-interval": "200ms"}
        databases = [{"path": str(self.database), "monitor-interval": "200ms", "replicas": [place]}]
        self._config.write_text(json.dumps({**settings, "dbs": databases}))
        self._environment = {**s3.secret, "PATH": os.defpath, "AWS_EC2_METADATA_DISABLED": "true"}

    def write(self, *statements: str) -> None:
        """Run statements, and have them in the replica."""
        self.execute(*statements)
        subprocess.run(self._command("-once"), env=self._environment, check=True, capture_output=True)

    def execute(self, *statements: str) -> None:
        """Run statements; a replica that is made meanwhile has them a moment later."""
        with contextlib.closing(sqlite3.connect(self.database, isolation_level=None, timeout=10)) as database:
            database.execute("PRAGMA journal_mode=wal")
            for statement in statements:
                database.execute(statement)

    @contextlib.contextmanager
    def replicating(self) -> Iterator[None]:
        """Litestream runs until the block ends."""
        process = subprocess.Popen(
            self._command(), env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield
        finally:
            process.kill()
            process.wait()

    def _command(self, *flags: str) -> Sequence[str]:
        return [str(litestream_binary(RELEASE)), "replicate", "-config", str(self._config), *flags]
