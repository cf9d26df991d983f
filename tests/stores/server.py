"""A server of a store on loopback for one test: a process that ends with the test, whatever becomes of that."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from abc import abstractmethod
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from injector.options import Options, read
from injector.tls.certificate import make_ca, make_leaf
from tests.podrunner.s3 import TIED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

START_SECONDS = 60


class Store(Protocol):
    """What a Pod has to be told of a store, and what its server says."""

    @property
    def annotations(self) -> dict[str, str]:
        """Those of a Pod whose replicas are there."""

    @property
    def secret(self) -> dict[str, str]:
        """The data of the Secret."""

    @property
    def config_maps(self) -> dict[str, dict[str, str]]:
        """ConfigMaps that the annotations name."""

    @property
    def options(self) -> Options:
        """The operator's."""

    def log(self) -> str:
        """What the server wrote."""


class Server:
    """A server until the `with` block ends. Its kind says which program runs, and when that can be used."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.config_maps: dict[str, dict[str, str]] = {}
        self.options = read({})
        self.directory = Path()
        self._processes: list[subprocess.Popen[bytes]] = []
        self.ended = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.directory = Path(self.ended.enter_context(tempfile.TemporaryDirectory(prefix="store-")))
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with process:  # its pipe is closed, and it is waited for
                pass
        self.ended.close()

    @abstractmethod
    def start(self) -> None:
        """Start what runs, and wait until it can be used."""

    def log(self) -> str:
        """What the server wrote."""
        return (self.directory / "log").read_text(errors="replace")

    def run(
        self,
        command: Sequence[str | Path],
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> None:
        """Run the program, as a user if one is given, and wait until its port takes connections."""
        with (self.directory / "log").open("ab") as log:
            process = subprocess.Popen(
                ["sh", "-c", TIED, "sh", *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env={"PATH": os.environ["PATH"], "HOME": str(self.directory), **(environment or {})},
                start_new_session=True,
                user=user,
            )
        self._processes.append(process)
        deadline = time.monotonic() + START_SECONDS
        while not self._listens():
            assert process.poll() is None, f"{command[0]} has ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"{command[0]} does not answer:\n{self.log()}"
            time.sleep(0.05)

    def certificate(self, *hosts: str) -> tuple[Path, Path, str]:
        """Files of a certificate for these hosts and its key, and the CA, new, as PEM."""
        now = datetime.now(UTC)
        ca = make_ca("A store of a test", now)
        leaf = make_leaf(ca, list(hosts), now)
        files = self.directory / "tls.crt", self.directory / "tls.key"
        for file, content in zip(files, (leaf.certificate, leaf.key), strict=True):
            file.write_bytes(content)
        return *files, ca.certificate.decode()

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False
