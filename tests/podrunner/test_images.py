"""An image has one name for the runner, however it is written."""

from __future__ import annotations

import pytest

from tests.podrunner.images import qualified


@pytest.mark.parametrize(
    ("written", "full"),
    [
        ("busybox", "docker.io/library/busybox"),
        ("busybox:1.37", "docker.io/library/busybox:1.37"),
        ("docker.io/busybox:1.37", "docker.io/library/busybox:1.37"),
        ("litestream/litestream:0.5.17", "docker.io/litestream/litestream:0.5.17"),
        ("docker.io/litestream/litestream:0.5.17", "docker.io/litestream/litestream:0.5.17"),
        ("localhost/app", "localhost/app"),
        ("registry:5000/app:1", "registry:5000/app:1"),
        ("ghcr.io/owner/app@sha256:00", "ghcr.io/owner/app@sha256:00"),
    ],
)
def test_a_short_name_is_of_docker_hub(written: str, full: str) -> None:
    assert qualified(written) == full
