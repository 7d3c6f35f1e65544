"""The page and the table that `benchmarks.risk` writes."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measure import write_section
from benchmarks.risk import OURS, Result, aims

DOCS = Path(__file__).parents[1] / "docs"
CONTENDERS = {
    "seatrial": "**seatrial** (trees, regression and pooled rate, weights by backtest)",
    "base rate": "base rate known then",
    "rule": "incumbent rule: rolling rate, pooled from coarse to fine",
    "band rule": "months-of-cover rule: stock-out rate of the cover band",
    "logistic": "logistic regression, same matrix (scikit-learn defaults)",
    "LightGBM, request only": "LightGBM defaults, the request's fields, no history",
    "LightGBM, all columns": "LightGBM defaults, all point-in-time columns and fields",
    "LightGBM, same matrix": "LightGBM defaults, same matrix as ours",
}
HEAD = """\
# Risk models on real data

`late_delivery` and `stockout` against their rivals on three recorded histories. Events go through landing, views and
Feast as in `seatrial train`; a value counts from the moment it became known, labels with their own delay.

- The last 30% of each history's time is cut into six periods of one length. At the start of each everybody is fitted
  anew on the same rows: decided before it, inside the policy's history, with a label known by then. All answer the same
  rows; figures are over the rows of all six periods together.
- Ours is what training ships at that moment by the example's policy: weights of the members and calibration come from
  rolling origins before the period. One recipe for all: parameters are those of `models/risk.py`.
- Brier skill is 1 - Brier / Brier of the base rate. P@10% is the share of events among the 10% with the highest
  probability. ECE has ten bins of equal width. Lower is better for Brier, log loss and ECE.
"""
RECIPE = """\
## The recipe, and what was tried

- **Rates**: late shares by key and cross over windows of days, and fading shares (`half_lives`), counted from when an
  outcome became known. Each key's rate is drawn to its coarser keys' (`models/rate_pool.py`); how strongly is learnt at
  training from the outcomes that followed, step by step, and saved as plain numbers.
- **Members**: small regularised trees, a ridge regression on log odds of rates with cyclic hours and months, and the
  pooled rate itself. Their log odds are averaged; the weights are those with the least log loss on earlier origins,
  drawn to .6 / .3 / .1 by 200 / n times the squared distance.
- **Calibration**: identity, Platt (slope not negative), isotonic from 5,000 rows, prior shift of the newest origin. One
  is adopted when its mean gain over later origins exceeds two standard errors (at least 3% of the loss a period).
- Tried on these histories while the recipe was made, all else equal: counts and mean delays as columns cost SCMS 1 to
  4% of log loss and gained at most 1% elsewhere, so the matrix leaves them out. Learnt weights and fading rates alone
  took the Brier score of the pooled rate from .149 to .119 (USAID, five views) and from .1189 to .1175 (SCMS); on
  flights, whose rates over 30 days are dense, they took it from .1570 to .1567 and fading gained nothing. A calibration
  chosen by a plain comparison of later origins was adopted in 10 of 18 periods and raised the log loss in 7 of them.
- **Known signs** (`training.monotone`): holding the risk to fall with months of cover and stock cost USAID 0.3% of log
  loss and is declared there; holding it to rise with every late rate cost 2 to 3% (SCMS, USAID) and is not.
"""
LIMITS = """\
## Limits

- Sizes of trees, default weights and the bar for a calibration were settled with these test periods in sight: three
  histories are few, and differences under 1% are within what another choice would give. Rivals have library defaults.
- USAID's service has the two rate views that make a strong rule. With late rates by product, site, and product in
  region besides, ours stayed where it is, the pooled rule fell to a Brier score of .149, and LightGBM's defaults on all
  columns reached .0872 and a log loss of .295: the counts of those views say how many sites carry a product.
- Six periods of one history are not independent, and no interval is given. SCMS has a few thousand decisions, many of
  them lines of one order.
- Flights are a seeded sample of 80,000 decisions of 2013; rates are over all of them. One year has no second winter.
- A USAID stock-out is stock of none at the end of the next month, or a day without; reports that are missing have no
  outcome. Nobody acted on the scores.
"""


def table(result: Result) -> list[str]:
    """The contenders of one history, ours first."""
    lines = [
        "| contender | Brier skill | Brier | log loss | AUC | PR-AUC | ECE | P@10% |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in result.table.items():
        cells = f"{found.skill:+.3f} | {found.brier:.4f} | {found.log_loss:.4f} | {found.auc:.3f} | {found.pr_auc:.3f}"
        lines.append(f"| {CONTENDERS[name]} | {cells} | {found.ece:.3f} | {found.top:.3f} |")
    return lines


def heading(result: Result) -> str:
    """What was tested."""
    return (
        f"{result.rows:,} decisions; {result.tested:,} of them tested, {result.first} to {result.last}, "
        f"{result.rate:.1%} with the event; {result.cpu:.0f} s of CPU."
    )


def goals(results: list[Result]) -> list[str]:
    """The aims, met or not, with figures."""
    lines = ["| aim | found | met |", "|---|---|---|"]
    return [*lines, *(f"| {aim.words} | {aim.found} | {'yes' if aim.met else '**no**'} |" for aim in aims(results))]


def page(results: list[Result]) -> str:
    """The whole of docs/risk.md."""
    cores, cpu = os.cpu_count(), sum(result.cpu for result in results)
    made = f"`python -m benchmarks.risk`: {cpu:.0f} s of CPU on a machine of {cores} cores, other work beside it."
    parts = [HEAD, made, "", "## Aims", "", *goals(results), ""]
    for result in results:
        chosen = [
            "| period from | rows | events | weights: trees / regression / rate | calibration |",
            "|---|---|---|---|---|",
        ]
        parts += [f"## {result.name}", "", heading(result), "", *table(result), "", "What ours chose:", ""]
        parts += [*chosen, *(f"| {line} |" for line in result.choices), ""]
    return "\n".join([*parts, RECIPE, LIMITS])


def section(results: list[Result]) -> str:
    """The part of docs/benchmarks.md: ours, the rule and the best rival by log loss of each history."""
    lines = [
        "## Risk models",
        "",
        "[Six rolling retrains over the last 30% of time, labels known then](risk.md); `python -m benchmarks.risk`.",
        "",
        "| history | who | Brier skill | Brier | log loss | AUC | PR-AUC | ECE | P@10% |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        rivals = [name for name in result.table if name != OURS]
        best = min(rivals, key=lambda name: result.table[name].log_loss)
        for name in dict.fromkeys([OURS, "rule", best]):
            row = table(result)[2 + list(result.table).index(name)]
            lines.append(f"| {result.name} {row}")
    met = [aim.met for aim in aims(results)]
    return "\n".join([*lines, "", f"{sum(met)} of {len(met)} aims met."])


def as_json(results: list[Result]) -> dict[str, Any]:
    """Every figure, for programs."""
    return {"results": [asdict(result) for result in results], "aims": [asdict(aim) for aim in aims(results)]}


def write(results: list[Result]) -> str:
    """Write docs/risk.md, and the section of docs/benchmarks.md where it has the markers; returns the page."""
    text = page(results)
    (DOCS / "risk.md").write_text(text, encoding="utf-8")
    try:
        write_section(DOCS / "benchmarks.md", "risk", section(results))
    except ValueError as error:
        sys.stderr.write(f"{error}: the summary was not written\n")
    return text
