"""Periods without demand made explicit, for sources that write a row only when something was sold."""

from __future__ import annotations

import numpy as np
import pandas as pd

from features.frames import DTYPES, frame_of, table_of


def fill_gaps(demand: pd.DataFrame) -> pd.DataFrame:
    """`demand` with a zero-quantity event for each period without one, between a series' first and the file's last.

    Args:
        demand: canonical demand events; each series in one period length.

    Returns:
        the events and, behind them, the added ones: quantity 0, no price, event_id `sku|location|start|no-demand`,
        known_at as long after the period's start as it usually is in the file (the median).
    """
    if demand.empty:
        return demand
    lag = pd.Timedelta((demand["known_at"] - demand["event_time"]).median())
    added = [demand]
    for period, rows in demand.groupby("period", sort=True):
        starts = _grid(rows["event_time"], str(period))
        codes = rows.groupby(["sku", "location"], sort=False).ngroup().to_numpy()
        series = rows[["sku", "location"]].drop_duplicates()
        place = np.searchsorted(starts, rows["event_time"].to_numpy(dtype="datetime64[us]"))
        first = np.full(len(series), len(starts))
        np.minimum.at(first, codes, place)
        empty = np.arange(len(starts))[None, :] >= first[:, None]
        empty[codes, place] = False
        which, when = np.nonzero(empty)
        if len(which):
            added.append(_zeros(rows, series, starts, which, when, lag))
    return pd.concat(added, ignore_index=True)


def _grid(times: pd.Series[pd.Timestamp], period: str) -> np.ndarray:
    """Starts of all periods from the first event to the last, and the events' own starts where they lie elsewhere."""
    stamps = times.to_numpy(dtype="datetime64[us]")
    if period == "month":
        months = np.arange(stamps.min().astype("datetime64[M]"), stamps.max().astype("datetime64[M]") + 1)
        regular = months.astype("datetime64[us]")
    else:
        step = np.timedelta64(7 if period == "week" else 1, "D")
        regular = np.arange(stamps.min(), stamps.max() + np.timedelta64(1, "us"), step)
    return np.union1d(regular, stamps)


def _zeros(
    rows: pd.DataFrame,
    series: pd.DataFrame,
    starts: np.ndarray,
    which: np.ndarray,
    when: np.ndarray,
    lag: pd.Timedelta,
) -> pd.DataFrame:
    sku, location = (series[name].to_numpy(dtype=object)[which] for name in ("sku", "location"))
    times = pd.DatetimeIndex(starts[when]).tz_localize("UTC")
    days = pd.DatetimeIndex(starts).strftime("%Y-%m-%d").to_numpy(dtype=object)[when]
    frame = frame_of(table_of("demand", rows.iloc[:0])).reindex(range(len(which)))
    frame["event_id"] = sku + "|" + location + "|" + days + "|no-demand"
    frame["event_time"] = times.astype(DTYPES["time"])
    frame["known_at"] = (times + lag).astype(DTYPES["time"])
    frame["sku"], frame["location"], frame["quantity"] = sku, location, 0.0
    frame["period"], frame["source_system"] = rows["period"].iloc[0], rows["source_system"].iloc[0]
    return frame_of(table_of("demand", frame))
