"""A memory limit for a webhook, the one that k8s/base sets: what takes more is killed, as in a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from injector.values import quantity
from tests.running import ROOT, Replica, running

CGROUPS = Path("/sys/fs/cgroup")


class Limited(NamedTuple):
    """A webhook inside a memory limit."""

    replica: Replica
    limit: int

    def peak(self) -> int:
        """The most memory that the process has had at once, in bytes."""
        status = Path(f"/proc/{self.replica.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024


def base_limit() -> int:
    """The memory limit of the container in k8s/base, in bytes."""
    deployment = yaml.safe_load((ROOT / "k8s/base/deployment.yaml").read_text())
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    return int(quantity(container["resources"]["limits"]["memory"]).amount)


@contextlib.contextmanager
def limited(folder: Path) -> Iterator[Limited]:
    """A webhook in a cgroup of its own, with the memory of k8s/base."""
    first = CGROUPS / "memory" if (CGROUPS / "memory").is_dir() else CGROUPS
    group, limit = first / f"litestream-hook-{folder.name}", base_limit()
    try:
        if first == CGROUPS:
            (CGROUPS / "cgroup.subtree_control").write_text("+memory")
        group.mkdir()
        for file, value in {"memory.limit_in_bytes": limit, "memory.max": limit, "memory.swap.max": 0}.items():
            if (group / file).exists():
                (group / file).write_text(str(value))
    except OSError as error:
        pytest.skip(f"there are no memory cgroups to be had: {error}")
    prefix = ["/bin/sh", "-c", f'echo $$ >{group}/cgroup.procs && exec "$@"', "sh"]
    try:
        with running(folder, prefix=prefix) as replica:
            yield Limited(replica, limit)
    finally:
        group.rmdir()
