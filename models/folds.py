"""Rolling origins that respect maturity: nothing is learnt from a label that was not known at the origin. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contracts.errors import InputInvalid, NotEnoughData
from contracts.times import utc

Positions = NDArray[np.int64]
Times = NDArray[np.datetime64]

# A block of scored rows ends where this share of labels has had the time to arrive: later rows would be those whose
# outcome came quickly, which are not like the others.
MATURE_SHARE = 0.95
FEWEST_TRAIN = 200
FEWEST_SCORED = 10
NEEDED = ("row_id", "as_of", "label", "label_known_at")


@dataclass(frozen=True)
class Fold:
    """One rolling origin: positions of rows to train on and to score; scored decisions lie in [origin, end)."""

    origin: datetime
    end: datetime
    train: Positions
    score: Positions


def utc_times(values: pd.Series[Any]) -> Times:
    """A column of zoned times as datetime64[us] in UTC, NaT kept."""
    if not isinstance(values.dtype, pd.DatetimeTZDtype):
        raise InputInvalid(str(values.name), "times with a zone", str(values.dtype))
    return np.asarray(values.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy(dtype="datetime64[us]"))


def moment(value: datetime) -> np.datetime64:
    """A zoned time as datetime64[us] in UTC."""
    return np.datetime64(utc(value).replace(tzinfo=None), "us")


def matured(rows: pd.DataFrame, now: datetime) -> NDArray[np.bool_]:
    """Which rows have a label that was known by `now`, (n,).

    Raises:
        InputInvalid: a needed column is missing or a time has no zone.
    """
    missing = [name for name in NEEDED if name not in rows.columns]
    if missing:
        raise InputInvalid("training rows", f"columns {', '.join(NEEDED)}", f"no {missing[0]}")
    known = utc_times(rows["label_known_at"])
    label = rows["label"].to_numpy(dtype=np.float64)
    return np.asarray(np.isfinite(label) & ~np.isnat(known) & (known <= moment(now)))


def folds(
    rows: pd.DataFrame, *, now: datetime, origins: int, every: timedelta, history: timedelta, horizon: int | None = None
) -> tuple[Fold, ...]:
    """Rolling origins, oldest first.

    Args:
        rows: row_id, as_of, label, label_known_at (times in UTC); forecasts also `step`.
        now: nothing known later is used.
        origins, every: how many blocks and how long each.
        history: how far before its origin a fold's training rows go.
        horizon: of a forecast: blocks then end where decisions with this step have matured.

    Returns:
        at most `origins` folds; fold k trains on rows with label_known_at <= origin and as_of >= origin - history, and
        scores matured rows with as_of in [origin, end). Early blocks without enough rows to train on are left out.

    Raises:
        NotEnoughData: not one block has enough rows.
    """
    usable = matured(rows, now)
    as_of, known = utc_times(rows["as_of"]), utc_times(rows["label_known_at"])
    end = _last_mature(rows, usable, as_of, known, now, horizon)
    found: list[Fold] = []
    if end is not None:
        inside = as_of[usable & (as_of <= end) & (as_of > end - np.timedelta64(every))]
        origin = inside.min() if len(inside) else end
        for number in range(origins):
            start = origin - number * np.timedelta64(every)
            stop = start + np.timedelta64(every)
            train = usable & (known <= start) & (as_of >= start - np.timedelta64(history)) & (as_of < start)
            score = usable & (as_of >= start) & (as_of < stop) & (as_of <= end)
            if train.sum() >= FEWEST_TRAIN and score.sum() >= FEWEST_SCORED:
                found.append(Fold(_time(start), _time(stop), np.flatnonzero(train), np.flatnonzero(score)))
    if not found:
        raise NotEnoughData("backtest training rows known before the first origin", FEWEST_TRAIN, int(usable.sum()))
    return tuple(reversed(found))


def _last_mature(
    rows: pd.DataFrame, usable: NDArray[np.bool_], as_of: Times, known: Times, now: datetime, horizon: int | None
) -> np.datetime64 | None:
    """The latest decision time at which nearly all labels have had the time to arrive; None without such rows."""
    whole = usable
    if horizon is not None:
        whole = usable & (rows["step"].to_numpy(dtype=np.int64) == horizon)
    if not whole.any():
        return None
    delay = np.sort((known[whole] - as_of[whole]).astype(np.int64))
    typical = np.timedelta64(int(delay[min(int(MATURE_SHARE * len(delay)), len(delay) - 1)]), "us")
    latest: np.datetime64 = min(as_of[whole].max(), moment(now) - typical)
    return latest if (as_of[whole] <= latest).any() else as_of[whole].max()


def _time(value: np.datetime64) -> datetime:
    return pd.Timestamp(value, tz="UTC").to_pydatetime()


def capped(positions: Positions, cap: int, seed: int) -> Positions:
    """At most `cap` of the positions, a seeded random subset in the original order."""
    if len(positions) <= cap:
        return positions
    return np.sort(np.random.default_rng(seed).choice(positions, size=cap, replace=False))
