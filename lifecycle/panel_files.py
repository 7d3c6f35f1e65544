"""A panel from a file, and a panel's forecasts as a table that `seatrial stockout` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from contracts.errors import InputInvalid, nearest
from contracts.mapping import Reader
from features.read_file import read_file
from models.hierarchy import Reconciled
from models.panel import Panel, PanelForecast

FLAGS = dict.fromkeys(("true", "1", "1.0", "yes"), True) | dict.fromkeys(("false", "0", "0.0", "no", ""), False)


def read_rows(path: Path, wanted: Sequence[str]) -> pd.DataFrame:
    """The rows of a CSV or Parquet file.

    Args:
        path: the file. wanted: columns that must be there.

    Raises:
        InputInvalid: the file cannot be read, holds no row, or lacks a column; names the nearest one.
    """
    found = read_file(Reader(), path)
    frame = (found if hasattr(found, "to_pandas") else found.to_table()).to_pandas()
    frame.columns = [str(name).strip() for name in frame.columns]
    for name in wanted:
        if name not in frame.columns:
            close = nearest(name, frame.columns)
            hint = f"did you mean {close!r}?" if close else ""
            raise InputInvalid(path.name, f"a column {name}", ", ".join(frame.columns) or "none", hint=hint)
    if not len(frame):
        raise InputInvalid(path.name, "at least one row", "none")
    return pd.DataFrame(frame)


def numbers(frame: pd.DataFrame, names: Sequence[str], path: Path) -> pd.DataFrame:
    """The frame with these columns as numbers, empty cells as NaN.

    Raises:
        InputInvalid: a cell is no number; names the row.
    """
    made = {}
    for name in names:
        cells = frame[name].replace("", None)
        values = pd.to_numeric(cells, errors="coerce")
        wrong = (values.isna() & cells.notna()).to_numpy()
        if wrong.any():
            at = int(np.argmax(wrong))
            raise InputInvalid(f"{path.name}, row {at + 1}: {name}", "a number or nothing", repr(cells.iloc[at]))
        made[name] = values
    return frame.assign(**made)


def flags(frame: pd.DataFrame, name: str, path: Path) -> pd.DataFrame:
    """The frame with a column of true or false (also 1, 0, yes, no), an empty cell as false.

    Raises:
        InputInvalid: a cell is neither; names the row.
    """
    said = frame[name].astype("string").str.strip().str.lower().fillna("")
    values = said.map(FLAGS)
    if values.isna().any():
        at = int(np.argmax(values.isna().to_numpy()))
        raise InputInvalid(f"{path.name}, row {at + 1}: {name}", "true or false", repr(frame[name].iloc[at]))
    return frame.assign(**{name: values.astype(bool)})


def forecast_table(panel: Panel, made: PanelForecast, totals: Reconciled | None) -> pd.DataFrame:
    """One row a series (then a total) and step: key, period, step, mean, point, a column a level, how.

    With totals the means are the coherent ones; a total's `how` is `total`, and its point is its mean.
    """
    horizon = made.mean.shape[1]
    keys, mean, quantiles, how = panel.keys, made.mean, made.quantiles, made.how
    point = made.mean if made.point is None else made.point
    if totals is not None:
        groups = totals.hierarchy.groups
        order = [*range(groups, len(totals.hierarchy.nodes)), *range(groups)]
        keys = tuple(totals.hierarchy.nodes[place] for place in order)
        mean, quantiles = totals.mean[order], totals.quantiles[order]
        how = (*made.how, *["total"] * groups)
        point = np.vstack([point, totals.mean[:groups]])
    dates = np.datetime_as_string(panel.dates(panel.periods, panel.periods + horizon), unit="D")
    table = pd.DataFrame(
        {
            "key": np.repeat(np.array(keys, dtype=object), horizon),
            "period": np.tile(dates, len(keys)),
            "step": np.tile(np.arange(1, horizon + 1), len(keys)),
            "mean": mean.ravel(),
            "point": point.ravel(),
        }
    )
    for place, level in enumerate(made.levels):
        table[f"{level:g}"] = quantiles[:, :, place].ravel()
    return table.assign(how=np.repeat(np.array(how, dtype=object), horizon))
