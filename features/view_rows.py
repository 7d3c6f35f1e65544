"""What every view builder has in common: where it stands, and the frame of rows that it hands to gold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.event_log import EventLog, Ints, KeyCodes, stamps
from features.gold import GoldStore

MICROSECOND_DAY = 86_400_000_000


class ViewBuilder(Protocol):
    """Extends one view. Times are microseconds since the epoch."""

    log: EventLog

    def behind(self) -> int | None:
        """Earliest moment at which an event landed since the last `rows` changes a row that was already built.

        Returns:
            Rows known at or after that moment are to be built again; None when there are none.
        """
        ...

    def resume(self, gold: GoldStore, after: int) -> None:
        """Stand where the rows up to `after` are built, from the events and gold alone."""
        ...

    def rows(self, until: int) -> tuple[pd.DataFrame, int | None]:
        """Rows after where the builder stands, up to `until`; the builder moves on.

        Returns:
            The rows, and the moment up to which the view is built now (None when nothing could be built yet).
        """
        ...


def view_frame(
    names: Sequence[str],
    keys: KeyCodes,
    codes: Ints,
    moments: Ints,
    columns: Sequence[str],
    values: npt.NDArray[np.float64],
) -> pd.DataFrame:
    """Rows of a ticked view: join keys, event_time = known_at = the tick, value columns.

    Args:
        names: the join keys.
        keys: their codes' keys.
        codes: the key of every row, (n,).
        moments: the tick of every row in microseconds, (n,).
        columns: names of the value columns, p of them.
        values: (n, p).
    """
    at = stamps(moments)
    found: dict[str, Any] = key_columns(names, keys, codes)
    found["event_time"], found["known_at"] = at, at
    found.update({name: values[:, place] for place, name in enumerate(columns)})
    return pd.DataFrame(found)


def key_columns(names: Sequence[str], keys: KeyCodes, codes: Ints) -> dict[str, npt.NDArray[Any]]:
    """The text columns of coded keys, one array of n a name."""
    found: dict[str, npt.NDArray[Any]] = {}
    for place, name in enumerate(names):
        parts = np.empty(len(keys), dtype=object)
        parts[:] = [key[place] for key in keys.keys]
        found[name] = parts[codes]
    return found


def joined(frames: Sequence[pd.DataFrame], empty: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Frames one after the other; without any, an empty frame with the text and number columns of `empty`."""
    if frames:
        return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)
    found: dict[str, Any] = {name: pd.Series(dtype=object) for name in empty["text"]}
    for name in ("event_time", "known_at"):
        found[name] = stamps(np.empty(0, dtype=np.int64))
    found.update({name: pd.Series(dtype=np.float64) for name in empty["number"]})
    return pd.DataFrame(found)
