"""Taking values at the places that a join found, fast: no null among the indices, no null check a value."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.asof import Int64


class Picks:
    """Places of the rows found, -1 where there is none, ready to be taken from any number of columns."""

    def __init__(self, places: Int64) -> None:
        """Args:
        places: int64, one a question.
        """
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    def of(self, column: pa.Array) -> pa.Array:
        """Values of a column at the places, null where a place is -1; the type stays.

        Arrow looks at every index for a null, and at every value, which costs several times the taking itself: the
        values and whether they are there are taken apart and put together.
        """
        if not len(column):
            return pa.nulls(len(self), column.type)
        kind = column.type
        if pa.types.is_nested(kind) or pa.types.is_dictionary(kind) or pa.types.is_null(kind):
            return column.take(pa.array(self.places, mask=self.places < 0))
        there = self._found
        if column.null_count and (pa.types.is_primitive(kind) and not pa.types.is_boolean(kind)):
            valid = column.is_valid().take(self._rows)
            there = valid if there is None else _call("and", there, valid)
            column = pa.Array.from_buffers(kind, len(column), [None, column.buffers()[1]], 0, column.offset)
        taken = column.take(self._rows)
        return taken if there is None else _call("if_else", there, taken, pa.scalar(None, kind))

    @cached_property
    def _rows(self) -> pa.Array:
        return pa.array(np.maximum(self.places, 0))

    @cached_property
    def _found(self) -> pa.Array | None:
        found = self.places >= 0
        return None if found.all() else pa.array(found)


def _call(name: str, *arguments: Any) -> pa.Array:
    return pc.call_function(name, list(arguments))
