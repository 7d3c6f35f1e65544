"""The stock-out rule on real monthly stock reports (USAID): is the shelf that it calls risky empty a month later?

Run: `python -m benchmarks.stockout_rule [DATA]`; prints the tables and writes them into docs/stockout.md.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.measure import ROOT, write_section
from models.demand_paths import StepDemand, step_correlation
from models.lead_time import fixed_lead_time
from models.metrics import auc, brier, ece, log_loss
from models.order_terms import Terms
from models.stockout import Stock, advise

Floats = NDArray[np.float64]
FILE = "usaid_contraceptive_lmis/contraceptive_logistics_data.csv"
LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
WINDOW, FEWEST, FIRST, SCORED, QUARTER = 12, 3, 18, 12, 3
COVER_EDGES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 12.0)
RISK_EDGES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)


def tables(path: Path) -> dict[str, Floats]:
    """The reports as tables (series, months), NaN where nothing was reported."""
    rows = pd.read_csv(path)
    rows["key"] = rows["site_code"] + "|" + rows["product_code"]
    rows["month_number"] = rows["year"] * 12 + rows["month"]
    names = {"given": "stock_distributed", "left": "stock_end", "began": "stock_initial", "received": "stock_received"}
    names |= {"ordered": "stock_ordered", "days_out": "stock_stockout_days"}
    wide = {name: rows.pivot(index="key", columns="month_number", values=column) for name, column in names.items()}
    return {name: table.to_numpy(dtype=np.float64) for name, table in wide.items()}


def month(data: dict[str, Floats], now: int) -> pd.DataFrame:
    """What each rule says at the end of month `now` about the end of the next, and what happened.

    Only series with stock and outcome reported and at least three of the last twelve months with something to give.
    """
    asked = asked_for(data)[:, now - WINDOW + 1 : now + 1]
    known = np.isfinite(data["left"][:, now]) & np.isfinite(data["left"][:, now + 1])
    chosen = np.flatnonzero(known & (np.isfinite(asked).sum(axis=1) >= FEWEST))
    asked, hand = asked[chosen], data["left"][chosen, now]
    forecast, mean = seen_demand(asked, 1), np.nanmean(asked, axis=1)
    ordered = np.nan_to_num(data["ordered"][chosen, now])
    return pd.DataFrame(
        {
            "hand": hand,
            "cover": np.divide(hand, mean, out=np.where(hand > 0, 1e9, 0.0), where=mean > 0),
            "alone": runs_empty(forecast, hand, np.zeros(len(hand))),
            "helped": runs_empty(forecast, hand, ordered),
            "ordered": ordered > 0,
            "came": data["received"][chosen, now + 1] > 0,
            "empty": (data["left"][chosen, now + 1] <= 0).astype(float),
            "month": now,
        }
    )


def asked_for(data: dict[str, Floats]) -> Floats:
    """Units asked for a month: what was given, NaN in months with days out of stock or with nothing to give."""
    cut = (data["days_out"] > 0) | ((data["began"] <= 0) & (data["received"] <= 0))
    return np.where(cut, np.nan, data["given"])


def seen_demand(past: Floats, steps: int) -> StepDemand:
    """The simplest forecast: every step is distributed as the known past months were."""
    quantiles, mean = np.nanquantile(past, LEVELS, axis=1).T, np.nanmean(past, axis=1)
    return StepDemand(np.repeat(quantiles[:, None], steps, axis=1), LEVELS, np.repeat(mean[:, None], steps, axis=1))


def runs_empty(forecast: StepDemand, hand: Floats, coming: Floats) -> Floats:
    """Probability that the month ends with an empty shelf. Units are whole: empty is less than half a unit left."""
    stock = Stock(np.maximum(hand + coming, 0.0) - 0.5)
    return advise(forecast, stock, fixed_lead_time(0), Terms(service_level=0.95)).probability


def said(seen: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """Probabilities of each contender for one month, from that month's rows and the earlier ones' outcomes."""
    came = float(seen.loc[seen["ordered"], "came"].mean())
    for rows in (seen, now):
        share = np.where(rows["ordered"], came, 0.0)
        rows["rule"] = share * rows["helped"] + (1 - share) * rows["alone"]
    return now.assign(
        base_rate=seen["empty"].mean(),
        cover_rate=binned(seen["cover"], seen["empty"], now["cover"], COVER_EDGES),
        rule_binned=binned(seen["rule"], seen["empty"], now["rule"], RISK_EDGES),
    )


def binned(score: pd.Series, outcome: pd.Series, new: pd.Series, edges: Sequence[float]) -> Floats:
    """Share of past outcomes in the bin of each new score; one empty and one full outcome are added to each bin."""
    place = np.searchsorted(edges, score.to_numpy(), side="right")
    full = np.bincount(place, weights=outcome.to_numpy(), minlength=len(edges) + 1) + 1
    count = np.bincount(place, minlength=len(edges) + 1) + 2
    return np.asarray((full / count)[np.searchsorted(edges, new.to_numpy(), side="right")], dtype=np.float64)


def quarters(data: dict[str, Floats], origins: Sequence[int]) -> tuple[Floats, Floats]:
    """Demand of the three months after each origin where all are known, and of the twelve before: (rows, months)."""
    asked, before, after = asked_for(data), [], []
    for now in origins:
        past, next_ones = asked[:, now - WINDOW + 1 : now + 1], asked[:, now + 1 : now + 1 + QUARTER]
        chosen = np.isfinite(next_ones).all(axis=1) & (np.isfinite(past).sum(axis=1) >= FEWEST)
        before.append(past[chosen])
        after.append(next_ones[chosen])
    return np.concatenate(before), np.concatenate(after)


def dependence(data: dict[str, Floats]) -> str:
    """How often demand of a quarter stayed within its reorder point, by the correlation of its months."""
    split = data["given"].shape[1] - SCORED - QUARTER
    past, actual = quarters(data, range(WINDOW, split - QUARTER))
    measured = step_correlation(actual, seen_demand(past, QUARTER))
    past, actual = quarters(data, range(split, data["given"].shape[1] - QUARTER))
    forecast, total = seen_demand(past, QUARTER), actual.sum(axis=1)
    lines = [
        f"Correlation of neighbouring months, measured on earlier months: {measured:.2f}.",
        f"Share of {len(total):,} later quarters whose demand stayed within the reorder point:",
        "",
        "| correlation | service level 0.5 | 0.8 | 0.9 | 0.95 |\n|---|---|---|---|---|",
    ]
    for name, rho in (("0, independent", 0.0), (f"{measured:.2f}, measured", measured), ("1, together", 1.0)):
        kept = [
            (total <= advise(
                forecast, Stock(np.zeros(len(total))), fixed_lead_time(QUARTER - 1), Terms(level), correlation=rho
            ).reorder_point + 1e-9).mean()
            for level in (0.5, 0.8, 0.9, 0.95)
        ]  # fmt: skip
        lines.append(f"| {name} | " + " | ".join(f"{share:.1%}" for share in kept) + " |")
    return "\n".join(lines)


def judged(data: dict[str, Floats]) -> pd.DataFrame:
    """All scored months, every contender."""
    last = data["left"].shape[1] - 1
    months = [month(data, now) for now in range(FIRST, last)]
    scored = range(len(months) - SCORED, len(months))
    return pd.concat([said(pd.concat(months[:i]), months[i].copy()) for i in scored], ignore_index=True)


CONTENDERS = {
    "base rate": "base_rate",
    "months of cover (past share empty by bin of cover)": "cover_rate",
    "the rule, nothing on order": "alone",
    "the rule, orders come with their past share": "rule",
    "the same, by past share empty of its bin": "rule_binned",
}


def report(rows: pd.DataFrame, quarter: str, began: float) -> str:
    """The tables in Markdown."""
    some = rows[rows["hand"] > 0]
    risky = f"{len(some):,} of them of a shelf that is not empty yet, {some['empty'].mean():.1%}."
    head = "| {} | Brier | log loss | AUC | ECE |\n|---|---|---|---|---|"
    parts = [
        f"{len(rows):,} forecasts of {rows['month'].nunique()} months, {rows['empty'].mean():.1%} of the shelves empty",
        f"at the end of the next; {risky}",
        "",
        head.format("all shelves"),
        *_lines(rows),
        "",
        head.format("shelves with stock"),
        *_lines(some),
        "",
        "What was said (the rule, orders with their past share; shelves with stock) and what happened:",
        "",
        "| probability | forecasts | mean said | share empty |\n|---|---|---|---|",
        *_reliability(some["rule"].to_numpy(), some["empty"].to_numpy()),
        "",
        quarter,
        "",
        f"CPU seconds for all of it: {time.process_time() - began:.1f}.",
    ]
    return "\n".join(parts)


def _lines(rows: pd.DataFrame) -> list[str]:
    actual = rows["empty"].to_numpy()
    lines = []
    for name, column in CONTENDERS.items():
        p = rows[column].to_numpy(dtype=np.float64)
        figures = (brier(actual, p), log_loss(actual, p), auc(actual, p), ece(actual, p))
        lines.append(f"| {name} | " + " | ".join(f"{figure:.4f}" for figure in figures) + " |")
    return lines


def _reliability(p: Floats, actual: Floats) -> list[str]:
    place = np.minimum((p * 10).astype(np.int64), 9)
    return [
        f"| {i / 10:.1f} to {(i + 1) / 10:.1f} | {int((place == i).sum()):,} | {p[place == i].mean():.3f} "
        f"| {actual[place == i].mean():.3f} |"
        for i in range(10)
        if (place == i).any()
    ]


def main() -> None:
    """Score, print, write."""
    named = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("SEATRIAL_DATA", ROOT.parent / "shared" / "data")
    began = time.process_time()
    data = tables(Path(named) / FILE)
    text = report(judged(data), dependence(data), began)
    sys.stdout.write(text + "\n")
    write_section(ROOT / "docs" / "stockout.md", "stockout_rule", text)


if __name__ == "__main__":
    main()
