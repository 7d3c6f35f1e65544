"""Rolling origins never look ahead."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from contracts.errors import InputInvalid, NotEnoughData
from models.folds import Fold, capped, folds, matured

NOW = datetime(2026, 6, 1, tzinfo=UTC)
EVERY, HISTORY = timedelta(days=14), timedelta(days=60)


def cut(rows: pd.DataFrame, horizon: int | None = None) -> tuple[Fold, ...]:
    return folds(rows, now=NOW, origins=3, every=EVERY, history=HISTORY, horizon=horizon)


@pytest.mark.parametrize(("name", "horizon"), [("demand", 14), ("risk", None)])
def test_no_fold_trains_on_a_label_known_after_its_origin(
    name: str, horizon: int | None, request: pytest.FixtureRequest
) -> None:
    """Nor on rows older than its history, and it scores only what was decided in its block."""
    rows = request.getfixturevalue(name)
    plan = cut(rows, horizon)
    assert len(plan) == 3 if name == "risk" else len(plan) >= 2
    for fold in plan:
        train, score = rows.iloc[fold.train], rows.iloc[fold.score]
        assert (train["label_known_at"] <= fold.origin).all()
        assert (train["as_of"] >= fold.origin - HISTORY).all()
        assert ((score["as_of"] >= fold.origin) & (score["as_of"] < fold.end)).all()
        assert (score["label_known_at"] <= NOW).all()


def test_blocks_follow_each_other_without_overlap(risk: pd.DataFrame) -> None:
    """Each row is scored at most once, the newest block last."""
    plan = cut(risk)
    assert [fold.end for fold in plan[:-1]] == [fold.origin for fold in plan[1:]]
    scored = np.concatenate([fold.score for fold in plan])
    assert len(set(scored)) == len(scored)


def test_forecast_blocks_end_where_the_whole_horizon_has_matured(demand: pd.DataFrame) -> None:
    """Otherwise the newest cutoffs would be judged on their easy first steps alone."""
    newest = demand.iloc[cut(demand, 14)[-1].score]
    steps = newest.groupby("as_of")["step"].max()
    assert (steps == 14).all()


def test_labels_known_later_do_not_exist(risk: pd.DataFrame) -> None:
    """Changing them changes no fold."""
    now = NOW - timedelta(days=20)
    later = risk.copy()
    later.loc[later["label_known_at"] > now, "label"] = 1.0
    assert (matured(risk, now) == matured(later, now)).all()
    assert not matured(risk, now)[(risk["label_known_at"] > now).to_numpy()].any()


def test_too_little_history_is_said(risk: pd.DataFrame) -> None:
    """No fold, no backtest, no candidate."""
    with pytest.raises(NotEnoughData, match="backtest"):
        cut(risk.tail(150))


def test_times_without_a_zone_are_refused(risk: pd.DataFrame) -> None:
    """A naive time may be any of 24 moments."""
    with pytest.raises(InputInvalid, match="zone"):
        cut(risk.assign(label_known_at=risk["label_known_at"].dt.tz_localize(None)))


def test_the_cap_is_a_seeded_subset() -> None:
    """In the original order, the same for the same seed."""
    positions = np.arange(100, 200)
    one = capped(positions, 30, 7)
    assert (np.diff(one) > 0).all()
    assert set(one) <= set(positions)
    assert (one == capped(positions, 30, 7)).all()
    assert (capped(positions, 100, 7) == positions).all()
