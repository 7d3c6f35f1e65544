"""Items, forecasts, open orders and lead times from files or the decision log, lined up for the stock-out rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contracts.decisions import DecisionRecord
from contracts.errors import InputInvalid, nearest
from contracts.mapping import Reader
from features.read_file import read_file
from models.demand_paths import StepDemand
from models.lead_time import LeadTime, combined, fixed_lead_time, observed_lead_times

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """A table whose rows have a key; `name` is said in errors."""

    name: str
    frame: pd.DataFrame

    def numbers(self, column: str) -> Floats:
        """A column as numbers, (n,); an empty cell is NaN.

        Raises:
            InputInvalid: no such column, or a cell that is no number; names the key.
        """
        if column not in self.frame.columns:
            close = nearest(column, map(str, self.frame.columns))
            hint = f"did you mean {close!r}?" if close else ""
            raise InputInvalid(self.name, f"a column {column}", f"{', '.join(map(str, self.frame.columns))}", hint=hint)
        cells = self.frame[column].replace("", None)
        values = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        wrong = np.isnan(values) & cells.notna().to_numpy()
        if wrong.any():
            at = int(np.argmax(wrong))
            raise InputInvalid(
                f"{self.name}: {column} of {self.frame['key'].iloc[at]}", "a number", repr(cells.iloc[at])
            )
        return values

    def optional(self, column: str, instead: float | None) -> Floats | float | None:
        """A column as numbers with `instead` in empty cells; `instead` alone where there is no such column."""
        if column not in self.frame.columns:
            return instead
        values = self.numbers(column)
        return values if instead is None else np.where(np.isnan(values), instead, values)


def keyed(path: Path) -> Rows:
    """A CSV or Parquet file with a column `key`, or `sku` and `location`, which make the key `sku|location`.

    Raises:
        InputInvalid: the file cannot be read, holds no row, or a row has no key.
    """
    found = read_file(Reader(), path)
    frame = (found if hasattr(found, "to_pandas") else found.to_table()).to_pandas()
    frame.columns = [str(name).strip() for name in frame.columns]
    if "key" not in frame.columns:
        if not {"sku", "location"} <= set(frame.columns):
            raise InputInvalid(path.name, "a column key, or sku and location", ", ".join(frame.columns) or "none")
        frame["key"] = frame["sku"].astype("string") + "|" + frame["location"].astype("string")
    if not len(frame):
        raise InputInvalid(path.name, "at least one row", "none")
    key = frame["key"].astype("string")
    unnamed = (key.isna() | (key.str.strip() == "")).to_numpy(dtype=bool)
    if unnamed.any():
        raise InputInvalid(f"{path.name}, row {int(np.argmax(unnamed)) + 1}", "a key", "none")
    return Rows(path.name, frame.assign(key=key.astype(str)))


def once(rows: Rows) -> tuple[str, ...]:
    """The keys in order.

    Raises:
        InputInvalid: a key comes twice.
    """
    twice = rows.frame["key"].duplicated()
    if twice.any():
        raise InputInvalid(rows.name, "each key once", f"{rows.frame['key'][twice].iloc[0]} more than once")
    return tuple(rows.frame["key"])


def forecast_rows(records: Iterable[DecisionRecord]) -> Rows:
    """The newest answered forecast of each series in the log, as rows (key, as_of, step, mean, a column a level)."""
    newest: dict[str, DecisionRecord] = {}
    for record in records:
        key = "|".join(record.subject[name] for name in ("sku", "location") if name in record.subject)
        if record.answer.steps and (key not in newest or newest[key].as_of <= record.as_of):
            newest[key] = record
    rows = [
        {"key": key, "as_of": record.as_of, "step": number, "mean": step.mean, **step.quantiles}
        for key, record in newest.items()
        for number, step in enumerate(record.answer.steps, start=1)
    ]
    if not rows:
        raise InputInvalid("decision log", "at least one answered forecast", "none", hint="ask the service first")
    return Rows("decision log", pd.DataFrame(rows))


def forecast_of(rows: Rows, keys: tuple[str, ...]) -> StepDemand:
    """Forecasts of the keys, in order.

    Args:
        rows: columns key, step (1, 2, ...), a column a quantile level named by it (0.1, 0.5, ...), and `mean` if known.

    Raises:
        InputInvalid: a key has no forecast, steps do not run from 1 without a gap or doubled, series end at different
            steps, or a figure is missing; names the series.
    """
    named = {name: level for name in rows.frame.columns if (level := _level(str(name))) is not None}
    if len(named) < 2:
        got = ", ".join(map(str, rows.frame.columns))
        raise InputInvalid(rows.name, "columns named by quantile levels, like 0.1, 0.5, 0.9", got)
    columns = sorted(named, key=lambda name: named[name])
    wanted = rows.frame["key"].isin(set(keys))
    absent = sorted(set(keys) - set(rows.frame["key"]))
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise InputInvalid(rows.name, "a forecast of every item", f"none of {absent[0]}{more}")
    mine = Rows(rows.name, rows.frame[wanted].reset_index(drop=True))
    series, step = _places(mine, keys)
    shape = (len(keys), int(step.max()))
    values = np.stack([_table(mine.numbers(column), series, step, shape) for column in columns], axis=2)
    mean = _table(mine.numbers("mean"), series, step, shape) if "mean" in mine.frame.columns else None
    _check_known(rows.name, keys, {"mean": mean, **{str(c): values[..., i] for i, c in enumerate(columns)}})
    return StepDemand(values, tuple(named[column] for column in columns), mean)


def on_order_of(rows: Rows, keys: tuple[str, ...]) -> Floats:
    """Open orders as units that come before each step, (n, steps).

    Args:
        rows: columns key, step (of arrival, 1 is the period that begins now), units; orders of other keys do not count.

    Raises:
        InputInvalid: a step is no whole number of at least 1, or units are missing; names the series.
    """
    mine = Rows(rows.name, rows.frame[rows.frame["key"].isin(set(keys))].reset_index(drop=True))
    step, units = mine.numbers("step"), mine.numbers("units")
    bad = ~((step >= 1) & (step == np.floor(step)) & (step <= 3660) & np.isfinite(units) & (units >= 0))
    if bad.any():
        at = int(np.argmax(bad))
        hint = "an order that is overdue needs the day on which it is expected now"
        wanted = "a step from 1 on and units of at least 0"
        raise InputInvalid(
            f"{rows.name}: order of {mine.frame['key'].iloc[at]}", wanted, f"{step[at]:g}, {units[at]:g}", hint=hint
        )
    table = np.zeros((len(keys), int(step.max(initial=1))))
    place = {key: i for i, key in enumerate(keys)}
    np.add.at(table, (mine.frame["key"].map(place).to_numpy(dtype=np.int64), step.astype(np.int64) - 1), units)
    return table


def lead_times_of(items: Rows, keys: tuple[str, ...], observed: Rows | None) -> LeadTime:
    """Lead times of the keys: from past deliveries (columns key, lead_time), else the items' own column lead_time.

    Raises:
        InputInvalid: a key has neither; names it.
    """
    if observed is None:
        given = items.numbers("lead_time")
        if np.isnan(given).any():
            raise InputInvalid(f"{items.name}: lead_time of {keys[int(np.argmax(np.isnan(given)))]}", "periods", "none")
        return fixed_lead_time(given)
    frame = observed.frame.assign(periods=observed.numbers("lead_time"))
    past: Mapping[str, Floats] = {str(key): part.to_numpy(dtype=float) for key, part in frame.groupby("key")["periods"]}
    own = items.optional("lead_time", np.nan)
    single = np.broadcast_to(np.asarray(own, dtype=np.float64), (len(keys),))
    found = []
    for key, fixed in zip(keys, single, strict=True):
        if key not in past and np.isnan(fixed):
            raise InputInvalid(
                f"{observed.name}: lead times of {key}", "at least one, or a lead_time of the item", "none"
            )
        found.append(observed_lead_times(past[key]) if key in past else fixed_lead_time(fixed))
    return combined(found)


def _level(name: str) -> float | None:
    try:
        level = float(name)
    except ValueError:
        return None
    return level if 0.0 < level < 1.0 else None


def _places(rows: Rows, keys: tuple[str, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Place of each row's series, and its step; every series has the same steps, each once."""
    step = rows.numbers("step")
    series = rows.frame["key"].map({key: i for i, key in enumerate(keys)}).to_numpy(dtype=np.int64)
    bad = ~((step >= 1) & (step == np.floor(step)))
    if bad.any():
        at = int(np.argmax(bad))
        raise InputInvalid(f"{rows.name}: step of {keys[series[at]]}", "a whole number from 1 on", f"{step[at]:g}")
    steps = step.astype(np.int64)
    length, count = np.zeros(len(keys), dtype=np.int64), np.bincount(series, minlength=len(keys))
    np.maximum.at(length, series, steps)
    doubled = pd.DataFrame({"series": series, "step": steps}).duplicated().to_numpy()
    broken = np.unique(np.concatenate([series[doubled], np.flatnonzero((count != length) | (length != length.max()))]))
    if len(broken):
        wanted = f"steps 1 to {length.max()}, each once"
        raise InputInvalid(f"{rows.name}: steps of {keys[broken[0]]}", wanted, f"{count[broken[0]]} rows")
    return np.asarray(series, dtype=np.int64), np.asarray(steps, dtype=np.int64)


def _table(values: Floats, series: NDArray[np.int64], step: NDArray[np.int64], shape: tuple[int, int]) -> Floats:
    table = np.full(shape, np.nan)
    table[series, step - 1] = values
    return table


def _check_known(name: str, keys: tuple[str, ...], tables: Mapping[str, Floats | None]) -> None:
    for column, table in tables.items():
        if table is not None and not (np.isfinite(table) & (table >= 0)).all():
            row, step = (int(i) for i in np.argwhere(~(np.isfinite(table) & (table >= 0)))[0])
            got = f"{table[row, step]:g}"
            raise InputInvalid(f"{name}: {column} of {keys[row]}, step {step + 1}", "units of at least 0", got)
