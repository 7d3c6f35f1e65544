"""A panel: demand of many series on one calendar, with what is known ahead; checked where it is made. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contracts.errors import InputInvalid, NotEnoughData

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Dates = NDArray[np.datetime64]
Frequency = Literal["day", "week", "month"]
Missing = Literal["unknown", "zero"]

# The unit in which numpy counts periods; weeks are counted from Monday 1969-12-29.
_UNIT: dict[str, str] = {"day": "D", "week": "W", "month": "M"}
_MONDAY = np.timedelta64(3, "D")


@dataclass(frozen=True)
class Panel:
    """Demand of n series over T periods.

    Attributes:
        keys: name of each series, (n,). frequency: length of a period.
        first: number of the first period since 1970, see `period_numbers`.
        demand: units a period, (n, T), >= 0; NaN where nothing is known: before the first row, closed, out of stock, or
            never reported.
        ahead: covariates known in advance, name -> (n, T + ahead) numbers, NaN where unknown.
        static: attributes that do not change, name -> (n,) text, None where unknown.
        censored: periods known to be out of stock or closed (a reason for NaN), (n, T), or None when never said.
    """

    keys: tuple[str, ...]
    frequency: Frequency
    first: int
    demand: Floats
    ahead: Mapping[str, Floats] = field(default_factory=dict)
    static: Mapping[str, NDArray[np.object_]] = field(default_factory=dict)
    censored: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        """Refuse demand that cannot be.

        Raises:
            InputInvalid: not one row of demand a key, or a quantity is negative or infinite; names series and place.
        """
        if self.demand.ndim != 2 or len(self.demand) != len(self.keys):
            raise InputInvalid("panel", f"demand of {len(self.keys)} series", f"the shape {self.demand.shape}")
        bad = (self.demand < 0) | np.isinf(self.demand)
        if bad.any():
            row, place = (int(i) for i in np.argwhere(bad)[0])
            day = self.dates(place, place + 1)[0]
            got = f"{self.demand[row, place]:g}"
            raise InputInvalid(
                f"series {self.keys[row]}, {self.frequency} {day}", "a finite quantity of at least 0", got
            )

    @property
    def periods(self) -> int:
        """T, the number of periods whose demand is given."""
        return int(self.demand.shape[1])

    def dates(self, start: int, stop: int) -> Dates:
        """First days of the periods at places start .. stop - 1 of the panel, datetime64[D]."""
        return first_days(np.arange(self.first + start, self.first + stop), self.frequency)

    def until(self, period: int, horizon: int) -> Panel:
        """The panel as it stood before the period at place `period`, with covariates for `horizon` periods more."""
        return replace(
            self,
            demand=self.demand[:, :period],
            ahead={name: values[:, : period + horizon] for name, values in self.ahead.items()},
            censored=None if self.censored is None else self.censored[:, :period],
        )

    def take(self, series: Ints) -> Panel:
        """The panel of these series only, by place."""
        return replace(
            self,
            keys=tuple(self.keys[i] for i in series),
            demand=self.demand[series],
            ahead={name: values[series] for name, values in self.ahead.items()},
            static={name: values[series] for name, values in self.static.items()},
            censored=None if self.censored is None else self.censored[series],
        )


@dataclass(frozen=True)
class PanelForecast:
    """Forecasts of n series, h steps ahead; step 1 is the first period after the panel.

    Attributes:
        mean: units, (n, h), >= 0: the published figure, for totals and inventory.
        quantiles: units, (n, h, q), rising along the last axis, >= 0. levels: the q levels.
        point: units, (n, h): the figure with the smallest absolute error, low where demand is intermittent.
        how: who answered for each series, (n,) text: `model`, or the name of a fallback.
        about: what the forecaster decided, plain values.
    """

    mean: Floats
    quantiles: Floats
    levels: tuple[float, ...]
    how: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    point: Floats | None = None


def period_numbers(days: Any, frequency: Frequency) -> Ints:
    """Number of the period that each day lies in, counted from the one of 1970-01-01 (0)."""
    stamps = np.asarray(days, dtype="datetime64[D]")
    if frequency == "week":
        return np.asarray((stamps.astype(np.int64) + 3) // 7, dtype=np.int64)
    return np.asarray(stamps.astype(f"datetime64[{_UNIT[frequency]}]").astype(np.int64), dtype=np.int64)


def first_days(numbers: Ints, frequency: Frequency) -> Dates:
    """First day of each period, datetime64[D]; the inverse of `period_numbers`."""
    if frequency == "week":
        return np.asarray(np.asarray(numbers) * 7 - 3, dtype="datetime64[D]")
    return np.asarray(numbers, dtype=np.int64).astype(f"datetime64[{_UNIT[frequency]}]").astype("datetime64[D]")


def panel_of(
    rows: pd.DataFrame,
    *,
    frequency: Frequency,
    keys: Sequence[str],
    period: str = "period",
    quantity: str = "quantity",
    ahead: Sequence[str] = (),
    static: Sequence[str] = (),
    censored: str | None = None,
    missing: Missing = "unknown",
    until: Any = None,
) -> Panel:
    """A panel from one row a series and period.

    Args:
        rows: `keys` (text), `period` (a day in the period), `quantity` (units; NaN unknown), and the named columns.
            Rows that lie ahead carry covariates and NaN as quantity.
        frequency: length of a period.
        keys: columns that make a series; names are joined with `|`.
        ahead, static: columns known in advance, and columns that do not change (their last known value counts).
        censored: a column that is true where the period was closed or out of stock: its demand is masked, not zero.
        missing: what a period without a row means from a series' first row on: `unknown`, or `zero` where every sale
            is on record (it stays NaN where censored, and where a row says that the quantity is unknown).
        until: first day that is not given any more; the newest period with a known quantity ends the panel when None.

    Raises:
        NotEnoughData: no row has a quantity.
        InputInvalid: a column is missing or no number, a day is none, a quantity is negative or infinite, a covariate
            is infinite, two series' names read alike, or a series has two rows in one period; names the first.
    """
    needed = [*keys, period, quantity, *ahead, *static, *([censored] if censored else [])]
    absent = [name for name in needed if name not in rows.columns]
    if absent:
        raise InputInvalid("panel rows", f"a column {absent[0]}", f"only {', '.join(map(str, rows.columns))}")
    if not keys:
        raise InputInvalid("panel rows", "at least one key column", "none")
    amount = _numbers(rows, quantity, quantity)
    if not np.isfinite(amount).any():
        raise NotEnoughData("panel rows with a known quantity", 1, 0)
    names = _names(rows, keys)
    number = period_numbers(_days(rows, period), frequency)
    _check_amounts(names, number, amount, frequency)
    known = np.isfinite(amount)
    labels, series = np.unique(names.astype(str), return_inverse=True)
    first = int(number.min())
    last = int(number[known].max()) if until is None else int(period_numbers(until, frequency)) - 1
    width = int(number.max()) - first + 1
    _check_single(labels, series, number, width, first, frequency)
    place = number - first
    demand, cut = _demand(rows, amount, series, place, (len(labels), last - first + 1), missing, censored)
    return Panel(
        keys=tuple(str(label) for label in labels),
        frequency=frequency,
        first=first,
        demand=demand,
        ahead={name: _covariate(rows, name, (len(labels), width), series, place) for name in ahead},
        static={name: _static(rows, name, series, len(labels), number) for name in static},
        censored=cut,
    )


def _demand(
    rows: pd.DataFrame,
    amount: Floats,
    series: Ints,
    place: Ints,
    shape: tuple[int, int],
    missing: Missing,
    censored: str | None,
) -> tuple[Floats, NDArray[np.bool_] | None]:
    """Demand by series and period, masked where censored, and the mask."""
    demand = np.full((shape[0], max(shape[1], 1)), np.nan)
    inside, known = place < shape[1], np.isfinite(amount)
    given = inside & known
    if not given.any():
        raise NotEnoughData("panel rows with a known quantity before the end", 1, 0)
    demand[series[given], place[given]] = amount[given]
    cut = _censor(rows, censored, demand, series, place)
    if missing == "zero":
        begun = np.maximum.accumulate(np.isfinite(demand), axis=1)
        demand = np.where(begun & np.isnan(demand), 0.0, demand)
        unsaid = inside & ~known
        demand[series[unsaid], place[unsaid]] = np.nan
    return (demand if cut is None else np.where(cut, np.nan, demand)), cut


def _names(rows: pd.DataFrame, keys: Sequence[str]) -> Any:
    """Name of each row's series; two different series never share one."""
    parts = rows[list(keys)].astype("string").fillna("unknown")
    names = parts[keys[0]]
    for key in keys[1:]:
        names = names + "|" + parts[key]
    if len(keys) > 1:
        spelt = parts.assign(**{"|": names}).drop_duplicates()["|"]
        if spelt.duplicated().any():
            alike = spelt[spelt.duplicated()].iloc[0]
            raise InputInvalid(f"series {alike}", f"one {', '.join(keys)}", "two that read alike when joined by |")
    return names.to_numpy(dtype=object)


def _days(rows: pd.DataFrame, period: str) -> Dates:
    try:
        days = pd.to_datetime(rows[period]).to_numpy(dtype="datetime64[D]")
    except (ValueError, TypeError) as error:
        raise InputInvalid(period, "days", str(error).splitlines()[0][:120]) from None
    if np.isnat(days).any():
        at = int(np.argmax(np.isnat(days)))
        raise InputInvalid(period, "a day in every row", f"none in row {at + 1}")
    return np.asarray(days)


def _numbers(rows: pd.DataFrame, column: str, what: str) -> Floats:
    try:
        return rows[column].to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError):
        wrong = rows[column][pd.to_numeric(rows[column], errors="coerce").isna() & rows[column].notna()]
        raise InputInvalid(what, "numbers", repr(wrong.iloc[0]) if len(wrong) else f"{rows[column].dtype}") from None


def _check_amounts(names: Any, number: Ints, amount: Floats, frequency: Frequency) -> None:
    for bad, wanted in ((amount < 0, "a quantity of at least 0"), (np.isinf(amount), "a finite quantity or none")):
        if bad.any():
            at = int(np.flatnonzero(bad)[0])
            day = first_days(number[at : at + 1], frequency)[0]
            hint = "net out returns, or leave the period unknown"
            raise InputInvalid(f"series {names[at]}, {frequency} {day}", wanted, f"{amount[at]:g}", hint=hint)


def _check_single(labels: Any, series: Ints, number: Ints, width: int, first: int, frequency: Frequency) -> None:
    cells, count = np.unique(series * width + (number - first), return_counts=True)
    if (count > 1).any():
        at = int(cells[np.argmax(count > 1)])
        day = first_days(np.array([at % width + first]), frequency)[0]
        got = f"{int(count.max())} rows" if (count > 1).sum() == 1 else f"{int((count > 1).sum())} with more"
        raise InputInvalid(f"series {labels[at // width]}, {frequency} {day}", "one row", got, hint="add them up first")


def _censor(
    rows: pd.DataFrame, column: str | None, demand: Floats, series: Ints, place: Ints
) -> NDArray[np.bool_] | None:
    if column is None:
        return None
    flagged = rows[column].astype("boolean").fillna(False).to_numpy(dtype=bool) & (place < demand.shape[1])
    cut = np.zeros(demand.shape, dtype=bool)
    cut[series[flagged], place[flagged]] = True
    return cut


def _covariate(rows: pd.DataFrame, name: str, shape: tuple[int, int], series: Ints, place: Ints) -> Floats:
    values = _numbers(rows, name, f"covariate {name}")
    if np.isinf(values).any():
        raise InputInvalid(f"covariate {name}", "finite numbers or none", "an infinite one")
    table = np.full(shape, np.nan)
    table[series, place] = values
    return table


def _static(rows: pd.DataFrame, name: str, series: Ints, count: int, number: Ints) -> NDArray[np.object_]:
    values = rows[name].astype("string")
    order = np.argsort(number, kind="stable")
    known = order[values.notna().to_numpy()[order]]
    found = np.full(count, None, dtype=object)
    found[series[known]] = values.to_numpy(dtype=object)[known]
    return found
