"""Criteria of one figure or one fact: three outcomes each, and what was not measured never passes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.evaluation import Evaluation
from contracts.policy import Policy
from contracts.rollout import Criterion, Outcome, RowKind, Verdict
from registry.gate import gate
from tests.registry.rig import MODEL, START, World, evaluation, policy

NOW = START + timedelta(days=21)
GATE: dict[str, Any] = {"metric": "brier", "min_rows": 100}


def asked(**section: Any) -> Policy:
    """A policy whose gate has these sections beside the metric."""
    return policy(gate=GATE | section)


def verdict(given: Evaluation, rule: Policy, **how: Any) -> Verdict:
    return gate(given, rule, **({"has_champion": True, "now": NOW} | how))


def named(found: Verdict, name: str) -> Criterion:
    return next(criterion for criterion in found.criteria if criterion.name == name)


def with_dataset(**change: object) -> Evaluation:
    base = evaluation()
    return replace(base, dataset=base.dataset | change)


@pytest.mark.parametrize("side", ["candidate", "incumbent", "champion"])
@pytest.mark.parametrize("noted", ["f" * 64, "", None, 7])
def test_losses_of_other_rows_are_not_compared(side: str, noted: object) -> None:
    """Another hash, or none, on any side leaves the gate open."""
    hashes = dict(evaluation().dataset["hash_by_side"]) | {side: noted}
    found = verdict(with_dataset(hash_by_side=hashes), asked())
    assert found.outcome is Outcome.INCONCLUSIVE
    assert named(found, "same_rows").outcome is Outcome.INCONCLUSIVE


def test_a_champion_that_is_not_there_needs_no_hash() -> None:
    """Before the first champion only candidate and incumbent are compared."""
    hashes = {"candidate": "a", "incumbent": "a"}
    given = with_dataset(hash_by_side=hashes)
    assert verdict(given, asked(), has_champion=False).outcome is Outcome.PASS
    assert verdict(given, asked()).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ({"state": "safe for automation", "reasons": ""}, Outcome.PASS),
        ({"state": "available", "reasons": ""}, Outcome.PASS),
        ({"state": "validated", "reasons": "its newest event is 9 days old"}, Outcome.INCONCLUSIVE),
        ({"state": "available"}, Outcome.INCONCLUSIVE),
        ({}, Outcome.INCONCLUSIVE),
    ],
)
def test_a_source_that_was_not_safe_leaves_the_gate_open(source: dict[str, str], wanted: Outcome) -> None:
    """Unless nothing more was expected of it, which is noted as no reason."""
    found = verdict(with_dataset(sources=[{"source": "erp", "kind": "outcome"} | source]), asked())
    assert (found.outcome, named(found, "sources").outcome) == (wanted, wanted)
    if "9 days" in source.get("reasons", ""):
        assert "outcome from erp was validated: its newest event is 9 days old" in found.words


@pytest.mark.parametrize("noted", [None, [], ["erp"], {}])
def test_sources_of_which_nothing_was_noted_leave_the_gate_open(noted: object) -> None:
    """Silence is no all-clear."""
    assert verdict(with_dataset(sources=noted), asked()).outcome is Outcome.INCONCLUSIVE


def test_old_rows_are_of_another_world() -> None:
    """The newest row may be as old as the policy says, not older; without an age nothing is asked."""
    given = evaluation()
    newest = given.losses["as_of"].max().to_pydatetime()
    rule = asked(max_data_age="10d")
    assert verdict(given, rule, now=newest + timedelta(days=10)).outcome is Outcome.PASS
    stale = verdict(given, rule, now=newest + timedelta(days=10, seconds=1))
    assert named(stale, "data_age").outcome is Outcome.INCONCLUSIVE
    assert "allowed 10d" in stale.words
    assert verdict(given, asked(), now=newest + timedelta(days=900)).outcome is Outcome.PASS


def test_rows_of_the_future_are_not_judged() -> None:
    """A decision after the training is a mistake in the times."""
    given = evaluation()
    newest = given.losses["as_of"].max().to_pydatetime()
    found = verdict(given, asked(), now=newest - timedelta(days=1))
    assert named(found, "rows").outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("figures", "wanted"),
    [
        ({"p99_ms": 2.0, "memory_mb": 30.0}, Outcome.PASS),
        ({"p99_ms": 12.0, "memory_mb": 30.0}, Outcome.FAIL),
        ({"p99_ms": 2.0, "memory_mb": 300.0}, Outcome.FAIL),
        ({"p99_ms": 2.0}, Outcome.INCONCLUSIVE),
        ({"p99_ms": np.nan, "memory_mb": 30.0}, Outcome.INCONCLUSIVE),
        ({}, Outcome.INCONCLUSIVE),
    ],
)
def test_what_predicting_costs_is_held_against_its_bounds(figures: dict[str, float], wanted: Outcome) -> None:
    """Over a bound fails, not measured is open; both are named as figures of predicting."""
    found = verdict(replace(evaluation(), predict=figures), asked(predict={"p99_ms": 10, "memory_mb": 100}))
    assert found.outcome is wanted
    assert [c.name for c in found.criteria[-2:]] == ["predict_p99_ms", "predict_memory_mb"]


@pytest.mark.parametrize(
    ("figures", "wanted"),
    [
        ({"noise": 0.01, "change": 0.03}, Outcome.PASS),
        ({"noise": 0.01, "change": 0.3}, Outcome.FAIL),
        ({"noise": 0.02, "change": 0.03}, Outcome.INCONCLUSIVE),
        ({"noise": 0.01}, Outcome.INCONCLUSIVE),
        ({}, Outcome.INCONCLUSIVE),
    ],
)
def test_a_model_on_a_cliff_fails(figures: dict[str, float], wanted: Outcome) -> None:
    """And one whose stability was measured at another noise, or not, is open."""
    found = verdict(replace(evaluation(), stability=figures), asked(stability={"noise": 0.01, "max_change": 0.1}))
    assert (found.outcome, named(found, "stability").outcome) == (wanted, wanted)


def test_criteria_that_the_policy_does_not_ask_for_are_not_there() -> None:
    """So that a verdict says only what was judged."""
    names = [criterion.name for criterion in verdict(evaluation(), asked()).criteria]
    assert names == ["rows", "leakage_audit", "same_rows", "sources", "beat_incumbent", "beat_champion"]


def test_the_same_verdict_with_another_latency_is_one_row(tmp_path: Path) -> None:
    """A training that goes on after a kill measures another time, and has reached nothing new; another outcome has."""
    world, rule = World(tmp_path), asked(predict={"p99_ms": 10})
    version = world.register("one", None)
    verdicts = [verdict(replace(evaluation(), predict={"p99_ms": ms}), rule) for ms in (0.5, 0.7, 20.0)]
    for found in (verdicts[0], verdicts[0], verdicts[1]):
        world.registrar.record_gate(rule, version, found)
    rows = [row for row in world.ledger.rows(MODEL) if row.kind is RowKind.GATED]
    assert len(rows) == 1
    beaten = next(c for c in rows[0].payload["criteria"] if c["name"] == "beat_champion")
    assert beaten["evidence"]["days"] == 20
    world.registrar.record_gate(rule, version, verdicts[2])
    assert world.state.gates[version] == "fail"
