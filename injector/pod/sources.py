"""What matters of a volume in a Pod, whoever wrote it: whether it lasts, can be written, and lies on a network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

READ_ONLY_SOURCES = ("configMap", "secret", "downwardAPI", "projected", "image")
NETWORK_SOURCES = ("nfs", "azureFile", "cephfs", "glusterfs", "quobyte")
# By a word of the driver's name: `efs.csi.aws.com`, `rook-ceph.cephfs.csi.ceph.com`, `csi.juicefs.com`, `fstab/cifs`.
NETWORK_DRIVER = re.compile(
    r"(?:^|[./-])(?:azurefile|beegfs|blob|cephfs|cifs|efs|file|filestore|fsx|gcsfuse|glusterfs|juicefs|lustre|moosefs"
    r"|nfs|s3|seaweedfs|smb|weka|wekafs)(?:[./-]|$)"
)
FLEETING_SOURCES = ("csi", "emptyDir", "ephemeral")


class Source(NamedTuple):
    """What matters of a volume: kinds that end with the Pod or lie on a network, whether it is read-only, or memory."""

    fleeting: str | None = None
    network: str | None = None
    read_only: bool = False
    memory: bool = False


def source_of(volume: Mapping[str, object]) -> Source:
    """What matters of a volume; one without any source is an emptyDir by default, and a claim does not tell."""
    sources = {kind: source for kind, source in volume.items() if source is not None and kind != "name"}
    memory = sources.get("emptyDir")
    return Source(
        "emptyDir" if not sources else next((kind for kind in sources if kind in FLEETING_SOURCES), None),
        _network(sources),
        any(
            kind in READ_ONLY_SOURCES or (isinstance(source, dict) and source.get("readOnly") is True)
            for kind, source in sources.items()
        ),
        isinstance(memory, dict) and memory.get("medium") == "Memory",
    )


def _network(sources: Mapping[str, object]) -> str | None:
    """The kind of a volume on a network file system."""
    plugins = [plugin for kind in ("csi", "flexVolume") if isinstance(plugin := sources.get(kind), dict)]
    drivers = [driver[:253] for plugin in plugins if isinstance(driver := plugin.get("driver"), str)]
    kinds = [kind for kind in NETWORK_SOURCES if kind in sources]
    return next(iter([*kinds, *filter(NETWORK_DRIVER.search, drivers)]), None)
