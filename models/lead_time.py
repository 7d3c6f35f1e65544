"""Lead times in whole periods: how likely each one is, from a table or from what was observed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.errors import InputInvalid, NotEnoughData

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
LONGEST = 3660
_SUM_TOLERANCE = 1e-6


@dataclass(frozen=True)
class LeadTime:
    """How likely each lead time is; an order with lead time L placed now is there before the demand of step L + 1.

    Attributes:
        shares: probability of a lead time of 0, 1, ... periods, (n, longest + 1), or (1, longest + 1) for all series
            alike; each row sums to 1.

    Raises:
        InputInvalid: a share is negative, not finite, or a row does not sum to 1.
    """

    shares: Floats

    def __post_init__(self) -> None:
        table = np.asarray(self.shares, dtype=np.float64)
        if table.ndim != 2 or table.shape[1] == 0:
            raise InputInvalid("lead time shares", "a table (series, periods)", f"the shape {table.shape}")
        sums = table.sum(axis=1)
        bad = ~(np.isfinite(table) & (table >= 0)).all(axis=1) | ~(np.abs(sums - 1.0) <= _SUM_TOLERANCE)
        if bad.any():
            at = int(np.argmax(bad))
            wanted = "shares of at least 0 that sum to 1"
            raise InputInvalid(f"lead time shares, row {at}", wanted, ", ".join(f"{v:g}" for v in table[at, :8]))
        object.__setattr__(self, "shares", table)

    @property
    def longest(self) -> Ints:
        """The longest lead time that can occur, periods, (n,) or (1,)."""
        possible = self.shares > 0
        return np.asarray(possible.shape[1] - 1 - np.argmax(possible[:, ::-1], axis=1), dtype=np.int64)

    @property
    def mean(self) -> Floats:
        """Expected lead time, periods, (n,) or (1,)."""
        return np.asarray(self.shares @ np.arange(self.shares.shape[1], dtype=np.float64), dtype=np.float64)

    def at(self, probability: Floats) -> Ints:
        """The shortest lead time that is reached with each of the probabilities, (n or 1, len(probability))."""
        reached = np.cumsum(self.shares, axis=1)
        reached[:, -1] = np.inf
        return np.asarray((reached[:, :, None] < probability[None, None, :]).sum(axis=1), dtype=np.int64)


def fixed_lead_time(periods: Any) -> LeadTime:
    """Lead times that do not vary: one number for all series, or one a series.

    Args:
        periods: whole periods >= 0, a number or (n,).

    Raises:
        InputInvalid: one is negative, no whole number, or longer than `LONGEST`.
    """
    lengths = np.atleast_1d(np.asarray(periods, dtype=np.float64))
    bad = ~((lengths >= 0) & (lengths <= LONGEST) & (lengths == np.floor(lengths)))
    if bad.any():
        at = int(np.argmax(bad))
        raise InputInvalid(f"lead time, row {at}", f"whole periods from 0 to {LONGEST}", f"{lengths[at]:g}")
    shares = np.zeros((len(lengths), int(lengths.max()) + 1))
    shares[np.arange(len(lengths)), lengths.astype(np.int64)] = 1.0
    return LeadTime(shares)


def observed_lead_times(observed: Sequence[float] | Floats) -> LeadTime:
    """The lead time distribution of past deliveries, for all series alike.

    Args:
        observed: lead times in periods, >= 0; a part of a period counts as a whole one.

    Raises:
        NotEnoughData: there is none. InputInvalid: one is negative, not finite, or longer than `LONGEST`.
    """
    lengths = np.ceil(np.asarray(observed, dtype=np.float64).ravel())
    if not len(lengths):
        raise NotEnoughData("observed lead times", 1, 0)
    bad = ~((lengths >= 0) & (lengths <= LONGEST))
    if bad.any():
        raise InputInvalid("observed lead times", f"periods from 0 to {LONGEST}", f"{lengths[int(np.argmax(bad))]:g}")
    return LeadTime(np.bincount(lengths.astype(np.int64))[None, :] / len(lengths))


def combined(lead_times: Sequence[LeadTime]) -> LeadTime:
    """One table for several series, one row each, in order; every given one has a single row."""
    width = max(each.shares.shape[1] for each in lead_times)
    return LeadTime(
        np.vstack([np.pad(each.shares, ((0, 0), (0, width - each.shares.shape[1]))) for each in lead_times])
    )
