"""What was worked out last, kept by all that it depends on: the Pods of a workload ask for the same again and again."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

MOST = 128
LONGEST = 4 * 1024  # bytes: what has more (a dozen databases) is rare, and would fill memory
_encoder = msgspec.json.Encoder()
Result = TypeVar("Result")


class Latest(Generic[Result]):
    """Results of one pure function, which nobody changes."""

    def __init__(self) -> None:
        self._results: dict[tuple[int, bytes], tuple[weakref.ref[object], Result]] = {}

    def of(self, whole: object, values: object, work: Callable[[], Result]) -> Result:
        """The result for these values: kept from before, or worked out now.

        Args:
            whole: what the result depends on and is the very same object each time, as it would be long in JSON. It is
                not kept here: its id may be another's when it is gone.
            values: all else that it depends on; those that are written alike in JSON are the same.
            work: the function; what it raises is not kept.
        """
        try:
            written = _encoder.encode(values)
        except (TypeError, ValueError, RecursionError):  # of a manifest: YAML holds more than JSON
            return work()
        key = (id(whole), written)
        kept = self._results.get(key)
        if kept is not None and kept[0]() is whole:
            return kept[1]
        result = work()
        if len(written) <= LONGEST:
            if len(self._results) >= MOST:
                self._results.clear()
            self._results[key] = (weakref.ref(whole), result)
        return result

    def __len__(self) -> int:
        return len(self._results)
