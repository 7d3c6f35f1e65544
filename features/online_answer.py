"""Feast's OnlineResponse over columns: its message is parsed when somebody asks for it, its dictionary needs none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from feast.online_response import TIMESTAMP_POSTFIX, OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from feast.value_type import ValueType

from features.online_response import NOT_FOUND, PRESENT, Bytes
from features.online_rows import Block


@dataclass(frozen=True)
class Shown:
    """The columns of one view in an answer: their names, the rows as read, and the status of each."""

    names: tuple[str, ...]
    block: Block
    status: Bytes


class ColumnResponse(OnlineResponse):
    """What Feast's own response is, to the bit; see `OnlineResponse`."""

    def __init__(
        self, content: bytes, given: Mapping[str, Sequence[Any]], views: Sequence[Shown], types: Mapping[str, ValueType]
    ) -> None:
        """Args:
        content: the bytes of the GetOnlineFeaturesResponse.
        given: join keys of the request, as they came.
        views: what was read.
        types: Feast's types of the features.
        """
        self._content, self._given, self._views, self._feature_types = content, given, views, dict(types)

    @cached_property
    def proto(self) -> Any:
        """Feast's message."""
        return GetOnlineFeaturesResponse.FromString(self._content)

    def to_dict(self, include_event_timestamps: bool = False) -> dict[str, Any]:
        """Values by name, None where there is none; with `<name>__ts`, seconds since the epoch, when asked."""
        plain = all(set(map(type, values)) <= {str, int} for values in self._given.values())
        if "proto" in self.__dict__ or not plain or any(view.block.numbers is None for view in self._views):
            # a message that somebody may have changed, or values that only the message says in Feast's way
            found: dict[str, Any] = super().to_dict(include_event_timestamps)
            return found
        found = {}
        for name, values in self._given.items():
            found[name] = list(values)
            if include_event_timestamps:
                found[name + TIMESTAMP_POSTFIX] = [0] * len(values)
        for view in self._views:
            seconds = np.where(view.status == NOT_FOUND, 0, view.block.event // 1_000_000).tolist()
            for name, column in zip(view.names, _columns(view), strict=True):
                found[name] = column
                if include_event_timestamps:
                    found[name + TIMESTAMP_POSTFIX] = list(seconds)
        return found


def _columns(view: Shown) -> list[list[float | None]]:
    numbers = view.block.numbers
    assert numbers is not None
    present = view.status == PRESENT
    if not present.all():
        numbers = np.where(present, numbers, np.nan)
    lists: list[list[float | None]] = numbers.tolist()
    for column in np.flatnonzero(np.isnan(numbers).any(axis=1)).tolist():
        lists[column] = [None if value != value else value for value in lists[column]]
    return lists
