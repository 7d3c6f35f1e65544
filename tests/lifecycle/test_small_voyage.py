"""The loop from end to end on generated demand: learn, decide, mature, monitor, retrain by age, replay."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

from contracts.monitoring import Response
from contracts.rollout import Move, RowKind
from features.importer import land_slice
from lifecycle.pipeline import population
from lifecycle.workspace import Workspace
from registry.ledger import verify
from serving.wiring import replay_in

SERIES, DAYS = 8, 24


def test_the_first_candidate_becomes_champion(sailed: Any) -> None:
    """A first candidate that passes its gate serves at once, trained on exactly the rows that were asked for."""
    at, trial = sailed.story.trials[0]
    assert (trial.version, trial.verdict.outcome.value, trial.rows_kept) == ("v1", "pass", True)
    assert sailed.story.moves[0][0] == at
    assert sailed.story.moves[0][1].move is Move.PROMOTE
    assert sailed.story.guarantee_violations == 0


def test_every_series_is_decided_every_day(sailed: Any) -> None:
    """8 series on 24 days are 192 decisions of a week each, none of which was refused."""
    records = sailed.story.records
    assert len(records) == len({record.decision_id for record in records}) == SERIES * DAYS
    assert {len(record.answer.steps) for record in records} == {7}
    assert not [record for record in records if record.answer.rung.value == "refuse"]
    assert all(record.views[0].event_time <= record.as_of for record in records)


def test_training_sees_every_weekday_as_decisions_do(sailed: Any, workspace: Workspace) -> None:
    """Cutoffs fall on all seven weekdays: on one alone, the step would stand for the weekday."""
    rows = population(workspace, sailed.policy, workspace.clock.now())
    assert set(rows["as_of"].dt.weekday) == set(range(7))
    first_steps = rows[rows["step"] == 1]
    assert first_steps["target_date"].nunique() == first_steps["as_of"].nunique() >= 14


def test_windows_are_judged_on_matured_decisions(sailed: Any) -> None:
    """A window a week is judged; the first has no decision whose week is over, the later ones have as many as asked."""
    windows = sailed.story.windows
    assert len(windows) == DAYS // 7
    assert all(window.end - window.start == timedelta(days=7) for window in windows)
    assert [(window.rows, window.matured) for window in windows] == [(56, 0), (56, 56), (56, 56)]
    assert windows[0].loss is None
    assert all(0 < window.loss < 3 * window.reference_loss for window in windows[1:])


def test_age_alone_retrains(sailed: Any) -> None:
    """After max_age the policy trains again, the reason says so, and the new candidate goes through the gate."""
    retrains = [answer for _, answer in sailed.story.responses if answer.response is Response.RETRAIN]
    assert sailed.story.retrains == len(sailed.story.trials) - 1 == 1
    assert retrains[0].reason == "no retraining for 14 days, 14d is the most"
    assert sailed.story.trials[1][0] - sailed.story.trials[0][0] == timedelta(days=14)


def test_the_ledger_tells_the_same_story(sailed: Any, workspace: Workspace) -> None:
    """The chain holds, and has a registration and a gate for each trial before any promotion of it."""
    with workspace.closing():
        rows = workspace.ledger.rows("demand")
    verify(rows)
    kinds = [(row.kind, row.version) for row in rows]
    for _, trial in sailed.story.trials:
        assert kinds.index((RowKind.REGISTERED, trial.version)) < kinds.index((RowKind.GATED, trial.version))
    promoted = [version for kind, version in kinds if kind is RowKind.PROMOTED]
    assert len(promoted) == sailed.story.count(Move.PROMOTE) >= 1
    assert all(kinds.index((RowKind.GATED, v)) < kinds.index((RowKind.PROMOTED, v)) for v in promoted)


def test_every_decision_replays(sailed: Any, workspace: Workspace) -> None:
    """Each decision, read back from the log by its id, comes out the same to the last bit."""
    with workspace.closing():
        for record in sailed.story.records:
            again = workspace.handler.decision(record.decision_id)
            assert again == record
            result = replay_in(workspace.settings, again)
            assert result.same, result.words


def test_landing_again_lands_nothing(sailed: Any, workspace: Workspace) -> None:
    """The same slices over the same landing change nothing: every batch says that it was here before."""
    first, last = sailed.story.trials[0][0], workspace.clock.now()
    before = len(workspace.landing.read("demand"))
    edges = [None, *(first + timedelta(days=day) for day in range((last - first).days + 1))]
    receipts = []
    for after, until in pairwise(edges):
        receipts += land_slice(sailed.staged, workspace.landing, after, until)
    assert len(receipts) == len(edges) - 1
    assert all(receipt.already for receipt in receipts)
    assert len(workspace.landing.read("demand")) == before == sailed.story.landed == SERIES * (112 + DAYS)
