"""Quantities are read by Kubernetes' grammar."""

from __future__ import annotations

import pytest

from tests.podrunner.quantity import thousandths, whole


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("64Mi", 64 << 20), ("1G", 10**9), ("1.5Gi", 3 << 29), ("128974848", 128974848), ("1e3", 1000), ("1500m", 2)],
)
def test_sizes_are_rounded_up_to_bytes(text: str, bytes_: int) -> None:
    assert whole(text) == bytes_


@pytest.mark.parametrize(("text", "millis"), [("20m", 20), ("0.5", 500), ("2", 2000), (1, 1000)])
def test_cpu_is_counted_in_thousandths(text: object, millis: int) -> None:
    assert thousandths(text) == millis


@pytest.mark.parametrize("text", ["", "Mi", "1 Gi", "1gi", "one", "1KiB"])
def test_what_is_no_quantity_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        whole(text)
