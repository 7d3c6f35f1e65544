"""What leakage is worth: the AUC that a leaky training claims against what the same model serves, on real shipments.

Run: `python -m benchmarks.leakage`; writes docs/leakage.md. Cuts and seeds are fixed: the same scores on every machine.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path

import numpy as np

from benchmarks.leaky_training import (
    DATINGS,
    ENCODED,
    FLAGGED,
    MODEL,
    TRAIN_SHARE,
    Score,
    Source,
    Trial,
    Yard,
    differing,
    joined,
    late_share,
    places,
    strongest,
)
from contracts.mapping import load_mapping
from contracts.rehearsal import load_rehearsal
from contracts.times import parse_time
from features.importer import stage
from lifecycle.demo_data import data_folder

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
OUTPUT = ROOT / "docs" / "leakage.md"
SMALL = 0.005
Result = tuple[Source, Yard, list[Score]]

VARIANTS = {
    "honest": "honest: `known_at` as recorded, split by time",
    "event": "events count when they happened, not when they were known",
    "promise": "outcomes filed under the promised day",
    "decision": "outcomes filed under the decision (no label delay)",
    "no_gap": "labels used for training before they were known",
    "encoded": "late share of carrier and lane over all rows as a feature",
    "random": "random split, honest features",
    "random_decision": "random split, no label delay",
}
COLUMNS = (
    "variant",
    "claimed AUC",
    "on the served rows",
    "served AUC",
    "claimed - served",
    "served - honest",
    "Brier claimed / served",
    "caught claimed / served",
)
HEAD = """\
# What leakage is worth

A model leaks when its training or its evaluation uses what was not known at the decision. It then claims more than it
will serve. Here the same recipe is trained honestly and with leaks that are common in practice, on two real histories,
and each variant's own claim stands beside what its model does on the decisions that follow.

- **Claimed**: AUC by the variant's own evaluation. Those that split by time hold out the period after the cut; those
  that split at random shuffle history and period and hold out what the fit does not take (at least {held:.0%}).
- **Served**: the model that the variant ships, on all decisions of the period after the cut, with the features that
  were available at each decision. It learnt from rows decided before the cut whose outcome was known at it.
- Same rows, model (the trees and regression of `models/risk.py`, untuned, not recalibrated), parameters and most rows
  a fit for all. Events go through landing, gold and `FeatureRepo.training_set`; only dates, split or one column differ.
- **Caught**: of 100 late shipments, how many are among the {flagged:.0%} with the highest scores.

Figures are medians over cuts and seeds, (smallest to largest). Differences are taken run by run, then the median:
years and months differ more than variants do, so the columns of differences are what to read.
"""
GUARDS = """\
## What stops it here

- **The known-at cut.** A view's row at a tick counts an outcome only once its `known_at` has passed, and the join only
  takes rows with `event_time` and `known_at` at or before `as_of`. The label's own delay is inside the rolling rates.
  The honest line claims what it serves because training and serving read the same rows.
- **Splits by time with a gap.** `seatrial train` and `backtest` know no random split; a fold learns only from labels
  that were known at its origin (`models/folds.py`).
- **The population.** A decision whose label was known at or before the decision is dropped. `rows taken` is how many
  rows `seatrial train` would take at the last cut; 0 means that it refuses with NotEnoughData.
- **`seatrial features audit`** recomputes a training set by brute force from landed events, and fails on a cell that
  differs. `wrong rows` is the share of decisions since the first cut with a feature other than what was available.
- **A feature too good to be true.** `best column` is the best AUC that one view column has alone (the encoded one in
  the last line); a leak that does not stand out from the honest line cannot be found by looking at columns.
"""
LIMITS = """\
## Limits

- The cut believes `known_at`. Who lands outcomes with a false one gets the lines above, and an audit against those
  landed events agrees with them: `wrong rows` compares with the events as they were recorded. A wrong mapping shows as
  skew instead, when what was served is held against what the join gives for the same moment.
- Neither history has corrections: each outcome was recorded once. What a restated value would leak is not measured.
- In SCMS the decision is the purchase order's date on 41% of the rows, elsewhere 90 days before the promise. Of the
  rows, 56% are lines of an order of several, nearly all promised for one day and with one fate; a random split puts
  them on both sides.
- SCMS is small (1,009 to 1,613 decisions a period) and its years differ more than the variants do. Why outcomes filed
  under the decision claim less there in most years was not looked into.
- The models are not the shipped ones: no recalibration, no learnt weight of the regression.
- Served is measured on recorded history, not in service: nobody acted on the scores.
- One recipe, one set of parameters. A model tuned on a leaky evaluation would drift further towards the leak.
"""


def flights() -> Source:
    """Carrier legs of 2013: five months served, each after half a year of history."""
    folder = EXAMPLES / "demo"
    voyage = next(each for each in load_rehearsal(folder / "demo.yaml").voyages if each.model == MODEL)
    return Source(
        name="NYC flights",
        mapping=folder / voyage.mapping,
        data=data_folder(voyage),
        features=ROOT / "features" / "repo",
        policies=ROOT / "policies",
        cuts=tuple(parse_time(f"2013-{month:02d}-01") for month in range(7, 12)),
        period=timedelta(days=30),
        seeds=(1,),
    )


def scms() -> Source:
    """Deliveries of health commodities: five years served, each after four years of history."""
    folder = EXAMPLES / "scms"
    data = Path(os.environ.get("SEATRIAL_DATA", ROOT.parent / "shared" / "data"))
    return Source(
        name="SCMS",
        mapping=folder / "deliveries.yaml",
        data=data / "scms_delivery_history" / "SCMS_Delivery_History_Dataset.csv",
        features=folder / "features",
        policies=folder / "policies",
        cuts=tuple(parse_time(f"{year}-01-01") for year in range(2010, 2015)),
        period=timedelta(days=365),
        seeds=(1, 2),
    )


def measured(source: Source) -> Result:
    """One data set from its files to all scores; the scratch workspaces are gone afterwards."""
    events = stage(load_mapping(source.mapping), source.data).events
    with tempfile.TemporaryDirectory(prefix="seatrial-leakage-") as folder:
        yard = joined(source, events, Path(folder))
    found = []
    for cut in source.cuts:
        for seed in source.seeds:
            found += Trial(yard, cut, seed, places(yard, cut, source.period)).scores()
            sys.stderr.write(f"{source.name}: cut {cut:%Y-%m-%d}, seed {seed}\n")
    return source, yard, found


def middle(values: Iterable[float], shown: str = "{:.3f}") -> str:
    """Median (smallest to largest), each as `shown`."""
    ordered = sorted(values)
    low, mid, high = (shown.format(value) for value in (ordered[0], statistics.median(ordered), ordered[-1]))
    return f"{mid} ({low} to {high})"


class Table:
    """The scores of one data set, by variant and run."""

    def __init__(self, scores: Iterable[Score]) -> None:
        self._runs: dict[str, dict[tuple[object, int], Score]] = {}
        for score in scores:
            self._runs.setdefault(score.variant, {})[score.cut, score.seed] = score

    def of(self, variant: str, figure: Callable[[Score], float]) -> list[float]:
        """One figure of a variant, run by run in a fixed order."""
        return [figure(score) for score in self._runs[variant].values()]

    def gaps(self, variant: str) -> list[float]:
        """Claimed minus served AUC, run by run."""
        return self.of(variant, lambda score: score.claimed.auc - score.served.auc)

    def lost(self, variant: str) -> list[float]:
        """Served AUC minus that of the honest training, run by run."""
        honest = self.of("honest", lambda score: score.served.auc)
        return [mine - fair for mine, fair in zip(self.of(variant, lambda s: s.served.auc), honest, strict=True)]

    def lines(self) -> list[str]:
        """The table of all variants."""
        return [
            f"| {' | '.join(COLUMNS)} |",
            "|---" * len(COLUMNS) + "|",
            *(self._line(variant, words) for variant, words in VARIANTS.items()),
        ]

    def _line(self, variant: str, words: str) -> str:
        def mid(figure: Callable[[Score], float]) -> float:
            return statistics.median(self.of(variant, figure))

        cells = [
            words,
            middle(self.of(variant, lambda s: s.claimed.auc)),
            f"{mid(lambda s: s.same_rows.auc):.3f}",
            middle(self.of(variant, lambda s: s.served.auc)),
            middle(self.gaps(variant), "{:+.3f}"),
            middle(self.lost(variant), "{:+.3f}"),
            f"{mid(lambda s: s.claimed.brier):.3f} / {mid(lambda s: s.served.brier):.3f}",
            f"{mid(lambda s: s.claimed.caught) * 100:.0f} / {mid(lambda s: s.served.caught) * 100:.0f}",
        ]
        return f"| {' | '.join(cells)} |"

    def reading(self) -> list[str]:
        """What the table says, in words that follow from its figures."""
        inflated = [name for name in VARIANTS if statistics.median(self.gaps(name)) > SMALL]
        order = sorted(inflated, key=lambda name: -statistics.median(self.gaps(name)))
        silent = [name for name in VARIANTS if name not in inflated and name != "honest"]
        lines = [self._cost(name) for name in order]
        if silent:
            lines.append(f"- Not the expected effect (median inflation of at most {SMALL} AUC, or a claim below):")
            lines += [f"  - {VARIANTS[name]}: {middle(self.gaps(name), '{:+.3f}')}." for name in silent]
        return lines

    def _cost(self, name: str) -> str:
        gaps, lost = self.gaps(name), self.lost(name)
        said, kept = (statistics.median(self.of(name, part)) for part in (_said, _kept))
        above = sum(gap > 0 for gap in gaps)
        return (
            f"- {VARIANTS[name]}: claims {statistics.median(gaps):+.3f} AUC too much, in {above} of {len(gaps)} runs;"
            f" the model it ships serves {statistics.median(lost):+.3f} against the honest one. Who follows up the"
            f" {FLAGGED:.0%} with the highest scores plans for {said * 100:.0f} of 100 late shipments and gets"
            f" {kept * 100:.0f}."
        )


def _said(score: Score) -> float:
    return score.claimed.caught


def _kept(score: Score) -> float:
    return score.served.caught


def periods(source: Source, yard: Yard) -> list[str]:
    """Rows and late shares by cut."""
    label = yard.frames["honest"]["label"].to_numpy()
    lines = ["| cut | rows to learn from | late | rows served | late |", "|---|---|---|---|---|"]
    for cut in source.cuts:
        at = places(yard, cut, source.period)
        shares = [f"{len(rows):,} | {label[rows].mean():.1%}" for rows in (at.train, at.served)]
        lines.append(f"| {cut:%Y-%m-%d} | {' | '.join(shares)} |")
    return lines


def seen(source: Source, yard: Yard) -> list[str]:
    """What each guard sees of each idea of time, since the first cut."""
    honest = yard.frames["honest"]
    since = np.flatnonzero((honest["as_of"] >= source.cuts[0]).to_numpy())
    lines = ["| variant | rows taken | wrong rows | best column |", "|---|---|---|---|"]
    for dating in DATINGS:
        wrong = differing(yard, dating, since)
        best = strongest(yard.frames[dating].iloc[since[::5]], yard.features)
        lines.append(f"| {VARIANTS[dating]} | {yard.taken[dating]:,} | {wrong:.1%} | {best:.3f} |")
    rows = honest.iloc[since]
    encoded = strongest(rows.assign(**{ENCODED: late_share(rows, rows)}), (ENCODED,))
    return [*lines, f"| {VARIANTS['encoded']} | - | - | {encoded:.3f} |"]


def section(result: Result) -> list[str]:
    """One data set's part of the page."""
    source, yard, scores = result
    table, plan = Table(scores), yard.policy.training
    setting = (
        f"{len(yard.frames['honest']):,} decisions with an outcome; {plan.history.days} days of history (at most"
        f" {plan.row_cap:,} rows a fit), {source.period.days} days served, {len(source.cuts)} cuts,"
        f" {len(source.cuts) * len(source.seeds)} runs."
    )
    return [
        f"## {source.name}",
        "",
        setting,
        "",
        *table.lines(),
        "",
        *table.reading(),
        "",
        *periods(source, yard),
        "",
    ]


def page(results: list[Result], wall: float, cpu: float) -> str:
    """The whole of docs/leakage.md; wall and CPU time of the run in seconds."""
    cores = os.cpu_count()
    made = f"`python -m benchmarks.leakage`: {wall:.0f} s, {cpu:.0f} s of CPU time, on {cores} cores. Seeds are fixed."
    parts = [HEAD.format(flagged=FLAGGED, held=1 - TRAIN_SHARE), made, ""]
    for result in results:
        parts += section(result)
    parts.append(GUARDS)
    for source, yard, _ in results:
        parts += [f"{source.name}:", "", *seen(source, yard), ""]
    return "\n".join([*parts, LIMITS])


def main() -> None:
    """Measure, print, write."""
    wall, cpu = time.perf_counter(), time.process_time()
    results = [measured(source) for source in (flights(), scms())]
    text = page(results, time.perf_counter() - wall, time.process_time() - cpu)
    sys.stdout.write(text)
    OUTPUT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
