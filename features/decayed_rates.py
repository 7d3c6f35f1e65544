"""Outcome rates that forget: an outcome weighs half as much a half-life after it became known.

Ages count in eighths of a half-life on a fixed grid since the epoch, so that a key's values change only when an outcome
comes or an eighth ends, and weights are whole millionths: sums are exact, whichever ticks are built together.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import numpy.typing as npt

from features.event_log import Floats, Ints

EIGHTHS = 8
HALVINGS = 8
UNIT = float(1 << 20)
WEIGHTS: Floats = np.rint(UNIT * 2.0 ** (-np.arange(EIGHTHS * HALVINGS) / EIGHTHS))
_DAY = 86_400_000_000


def eighth(half_life: int) -> int:
    """Microseconds of an eighth of a half-life of so many days."""
    return half_life * _DAY // EIGHTHS


def memory(half_life: int) -> timedelta:
    """How long after it became known an outcome still weighs something; from then on its weight is 0."""
    return timedelta(microseconds=eighth(half_life) * EIGHTHS * HALVINGS)


def decayed(
    half_life: int, codes: Ints, start: Ints, end: Ints, known: Ints, late: Floats, ticks: Ints, shape: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """decayed_rate and decayed_n of every key at every tick.

    Args:
        half_life: days.
        codes, start, end, known, late: of each outcome version, (n,): its key's number, the ticks [start, end) at which
            it counts as numbers of `ticks` (0 is the first one; may lie outside), when it became known (microseconds),
            1 late or 0.
        ticks: consecutive ticks in microseconds, (t,).
        shape: number of keys, and t.

    Returns:
        (keys, t, 2): weighted late share (NaN without any weight) and sum of weights.
    """
    step = eighth(half_life)
    now, then = ticks // step, known // step
    sums = np.zeros((2, shape[0] * (shape[1] + 1)))
    edges = np.flatnonzero(np.r_[True, now[1:] != now[:-1], True])
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        age = int(now[low]) - then
        use = np.flatnonzero((age < len(WEIGHTS)) & (start < high) & (end > low))
        held = WEIGHTS[np.maximum(age[use], 0)]
        row = codes[use] * (shape[1] + 1)
        enter, leave = row + np.maximum(start[use], low), row + np.minimum(end[use], high)
        for place, amount in enumerate((held, held * late[use])):
            sums[place] += np.bincount(enter, amount, sums.shape[1]) - np.bincount(leave, amount, sums.shape[1])
    total, lates = np.cumsum(sums.reshape(2, shape[0], shape[1] + 1), axis=2)[:, :, :-1]
    with np.errstate(invalid="ignore"):
        return np.stack([lates / total, total / UNIT], axis=2)
