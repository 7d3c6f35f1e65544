"""Do reconciled totals miss by less than added-up ones? Rossmann, weeks, by store type and assortment.

Base forecasts of stores and totals alike: statsforecast's DynamicOptimizedTheta, each series on its own, so that the
tables tell methods of reconciliation apart, nothing else. Run: `python -m benchmarks.reconciliation [STORES]`; writes
docs/hierarchy.md.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.measure import ROOT, write_section
from models.hierarchy import Method, Reconciled, coherence, hierarchy_of, reconcile, total_panel
from models.metrics import bias, coverage, wape
from models.panel import Panel, PanelForecast, panel_of

Floats = NDArray[np.float64]
FILE = "rossmann/rossmann.parquet"
BY = ("StoreType", "Assortment")
HORIZON, ORIGINS, LEVELS = 6, 8, (0.1, 0.5, 0.9)
CLOSED_WEEKS = 0.02


def weekly(path: Path, stores: int) -> Panel:
    """Turnover of each whole week of stores that were hardly ever closed for a week, the first `stores` by number."""
    rows = pd.read_parquet(path, columns=["Store", "Date", "Sales", *BY])
    rows["Date"] = pd.to_datetime(rows["Date"])
    rows["week"] = rows["Date"] - pd.to_timedelta(rows["Date"].dt.weekday, unit="D")
    rows = rows[(rows["week"] >= "2013-01-07") & (rows["week"] < "2015-07-27")]
    sums = rows.groupby(["Store", "week"], as_index=False).agg({"Sales": "sum", **dict.fromkeys(BY, "first")})
    sums["Store"] = "store " + sums["Store"].astype(int).map("{:04d}".format)
    panel = panel_of(
        sums, frequency="week", keys=["Store"], period="week", quantity="Sales", static=list(BY), missing="zero"
    )
    whole = np.flatnonzero((np.nan_to_num(panel.demand) == 0).mean(axis=1) <= CLOSED_WEEKS)
    return panel.take(whole[:stores])


def theta(demand: Floats) -> tuple[Floats, Floats]:
    """Means (n, HORIZON) and in-sample errors (n, T), actual less forecast, of each series on its own."""
    from statsforecast import StatsForecast
    from statsforecast.models import DynamicOptimizedTheta

    count, length = demand.shape
    rows = pd.DataFrame(
        {
            "unique_id": np.repeat(np.arange(count), length),
            "ds": np.tile(np.arange(length), count),
            "y": demand.ravel(),
        }
    )
    engine = StatsForecast(models=[DynamicOptimizedTheta(season_length=52)], freq=1, n_jobs=1)
    ahead = engine.forecast(df=rows, h=HORIZON, fitted=True).sort_values(["unique_id", "ds"])
    fitted = engine.forecast_fitted_values().sort_values(["unique_id", "ds"])
    name = "DynamicOptimizedTheta"
    errors = (fitted["y"] - fitted[name]).to_numpy(dtype=np.float64).reshape(count, length)
    return np.maximum(ahead[name].to_numpy(dtype=np.float64).reshape(count, HORIZON), 0.0), errors


def origin(panel: Panel, cutoff: int) -> tuple[dict[str, Reconciled], Floats, Floats]:
    """Reconciled forecasts by each method from one cutoff, the base forecasts, and what came, (nodes, HORIZON)."""
    past, tree = panel.until(cutoff, 0), hierarchy_of(panel, BY)
    history = np.vstack([total_panel(past, tree).demand, np.nan_to_num(past.demand)])
    means, errors = theta(history)
    spread = np.quantile(errors[tree.groups :], LEVELS, axis=1).T
    own = np.maximum(means[tree.groups :, :, None] + spread[:, None, :], 0.0)
    series = PanelForecast(means[tree.groups :], own, LEVELS)
    totals = dict(zip(tree.nodes[: tree.groups], means[: tree.groups], strict=True))
    made = {name: reconcile(past, series, BY, totals, name, residuals=errors) for name in get_args(Method)}
    actual = tree.sums @ np.nan_to_num(panel.demand[:, cutoff : cutoff + HORIZON])
    return made, means, actual


def line(name: str, said: list[Floats], came: list[Floats], levels: list[slice], extra: str) -> str:
    """A row of the table: WAPE of each level and bias of the grand total over all origins."""
    figures = []
    for level in levels:
        actual, forecast = (np.concatenate([part[level].ravel() for part in side]) for side in (came, said))
        figures.append(f"{wape(actual, forecast):.4f}")
    total, forecast = (np.concatenate([part[0] for part in side]) for side in (came, said))
    return f"| {name} | {' | '.join(figures)} | {bias(total, forecast):+.2%} | {extra} |"


def report(panel: Panel) -> str:
    """The table in Markdown."""
    began = time.process_time()
    runs = [origin(panel, panel.periods - HORIZON * (number + 1)) for number in range(ORIGINS)]
    tree = hierarchy_of(panel, BY)
    types = sum(node.startswith(f"{BY[0]}=") for node in tree.nodes)
    levels = [slice(0, 1), slice(1, 1 + types), slice(1 + types, tree.groups), slice(tree.groups, None)]
    came = [actual for _, _, actual in runs]
    lines = [
        f"{len(panel.keys)} stores, {tree.groups} totals, {ORIGINS} origins of {HORIZON} weeks; WAPE by level.",
        "",
        "| forecast | total | store type | assortment | store | bias of total | gap / lowest / 80% cover of totals |",
        "|---|---|---|---|---|---|---|",
        line("each on its own, adds up to nothing", [means for _, means, _ in runs], came, levels, "-"),
    ]
    for name in get_args(Method):
        made = [each[name] for each, _, _ in runs]
        spread = np.concatenate([each.quantiles[: tree.groups].reshape(-1, len(LEVELS)) for each in made])
        actual = np.concatenate([part[: tree.groups].ravel() for part in came])
        kept = coverage(actual, spread[:, 0], spread[:, -1])
        gap, lowest = max(coherence(each) for each in made), min(float(each.mean.min()) for each in made)
        extra = f"{gap:.0e} / {lowest:,.0f} / {kept:.0%}"
        lines.append(line(name, [each.mean for each in made], came, levels, extra))
    return "\n".join([*lines, "", f"CPU seconds for all of it: {time.process_time() - began:.0f}."])


def main() -> None:
    """Score, print, write."""
    folder = Path(os.environ.get("SEATRIAL_DATA", ROOT.parent / "shared" / "data"))
    text = report(weekly(folder / FILE, int(sys.argv[1]) if len(sys.argv) > 1 else 2000))
    sys.stdout.write(text + "\n")
    write_section(ROOT / "docs" / "hierarchy.md", "reconciliation", text)


if __name__ == "__main__":
    main()
