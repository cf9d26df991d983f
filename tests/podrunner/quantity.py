"""Kubernetes quantities (`64Mi`, `100m`, `1e3`) as numbers."""

from __future__ import annotations

import re
from decimal import Decimal
from math import ceil

_GRAMMAR = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(|[numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def quantity(text: object) -> Decimal:
    """The value of a quantity as the API server reads it; ValueError if it is none."""
    match = _GRAMMAR.fullmatch(str(text))
    if match is None:
        raise ValueError(f"{text!r} is not a quantity: write one like 64Mi, 100m or 2")
    number, suffix = Decimal(match[1]), match[2]
    if suffix in _BINARY:
        return number * Decimal(2 ** _BINARY[suffix])
    if suffix in _DECIMAL:
        return number * Decimal(10) ** _DECIMAL[suffix]
    return number * Decimal(10) ** int(suffix[1:])


def whole(text: object) -> int:
    """A quantity rounded up to a whole number, as sizes in bytes are."""
    return ceil(quantity(text))


def thousandths(text: object) -> int:
    """A quantity in thousandths, rounded up, as CPU is counted."""
    return ceil(quantity(text) * 1000)
