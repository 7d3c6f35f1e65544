"""Two policies side by side: what changed, and which way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.policy import Policy
from registry.policy_diff import Way, policy_diff
from tests.registry.rig import policy


def changed(key: str, value: Any, start: Policy | None = None) -> Policy:
    """A policy with one dotted key set otherwise."""
    tree = (start or policy()).model_dump(mode="json")
    *path, last = key.split(".")
    place = tree
    for part in path:
        place[part] = dict(place[part] or {})
        place = place[part]
    place[last] = value
    return Policy.model_validate(tree)


@pytest.mark.parametrize(
    ("key", "value", "way", "words"),
    [
        ("gate.beat.champion", 0.05, Way.STRICTER, "the lead over the champion"),
        ("gate.beat.incumbent", -0.05, Way.LOOSER, "the lead over the incumbent"),
        ("gate.calibration.ece_max", 0.9, Way.LOOSER, "calibration error"),
        ("gate.predict.p99_ms", 5.0, Way.STRICTER, "how long one prediction may take"),
        ("gate.segments.by", ["carrier", "mode", "origin"], Way.STRICTER, "the segments that must not lose"),
        ("gate.segments.by", ["carrier"], Way.SIDEWAYS, "others"),
        ("gate.approvals.by", [], Way.LOOSER, "an empty list lets every role approve"),
        ("gate.approvals.not_author", False, Way.LOOSER, "author"),
        ("gate.approvals.expires", "1d", Way.STRICTER, "how long an approval holds"),
        ("rollout.canary.steps", [5, 10, 50], Way.STRICTER, "begins at 5% in place of 10%"),
        ("rollout.canary.steps", [90], Way.LOOSER, "begins at 90% in place of 10%"),
        ("rollout.canary.steps", [20, 30, 40], Way.SIDEWAYS, "3 step(s)"),
        ("rollout.canary.key", "carrier", Way.SIDEWAYS, "key is another one"),
        ("rollout.canary.max_decisions", 10, Way.STRICTER, "the decisions that a canary may answer"),
        ("rollout.freeze", [{"reason": "stocktaking", "quarter_end": 5}], Way.STRICTER, "nothing goes forward"),
        ("rollout.guardrails.error_rate", 0.5, Way.LOOSER, "failed answers"),
        ("rollout.verdict.alpha", 0.01, Way.STRICTER, "wrong verdict"),
        ("rollout.verdict.deadline", "90d", Way.LOOSER, "before a person is asked"),
        ("retrain.when.max_age", "10d", Way.LOOSER, "the age at which a model is trained again"),
        ("retrain.veto", "none", Way.LOOSER, "runs even on broken data"),
        ("automate.promote_to_champion", "approval", Way.STRICTER, "promote to champion now waits for a person"),
        ("serve.ladder", ["champion", "refuse"], Way.STRICTER, "the rungs that may answer"),
        ("owner.team", "others", Way.SIDEWAYS, "team is another one"),
        ("business.costs.loss", 3.0, Way.SIDEWAYS, "loss is another one"),
    ],
)
def test_each_change_says_which_way_it_goes(key: str, value: Any, way: Way, words: str) -> None:
    """A changed key is named once, with both values, whether it is stricter or looser, and what it means."""
    start = changed("gate.approvals.by", ["model-owner"])
    found = policy_diff(start, changed(key, value, start))
    assert [change.key for change in found] == [key]
    assert (found[0].way, words in found[0].means) == (way, True), found[0]


def test_both_values_are_shown_as_a_file_says_them() -> None:
    """Durations are shown as in the file, and a section that came anew gives one change a key."""
    found = policy_diff(policy(), changed("gate.stability", {"noise": 0.05, "max_change": 0.2}))
    assert [(c.key, c.old, c.new, c.way) for c in found] == [
        ("gate.stability.noise", None, 0.05, Way.STRICTER),
        ("gate.stability.max_change", None, 0.2, Way.STRICTER),
    ]
    bake = policy_diff(policy(), changed("rollout.canary.bake", "36h"))[0]
    assert (bake.old, bake.new, bake.way) == ("1d", "36h", Way.STRICTER)
    coverage = changed("gate.calibration.coverage", [0.7, 0.9])
    assert policy_diff(policy(), coverage)[0].means == "a narrower range of coverage passes"
    assert policy_diff(coverage, changed("gate.calibration.coverage", [0.75, 0.95]))[0].way is Way.SIDEWAYS


@settings(deadline=None, max_examples=40)
@given(
    margin=st.floats(-0.5, 0.5),
    steps=st.lists(st.integers(1, 100), min_size=1, max_size=4, unique=True).map(sorted),
    days=st.integers(1, 90),
    by=st.lists(st.sampled_from(["origin", "carrier", "mode"]), unique=True),
    other=st.integers(1, 90),
)
def test_a_policy_does_not_differ_from_itself(
    margin: float, steps: list[int], days: int, by: list[str], other: int
) -> None:
    """No policy differs from itself, and what is stricter one way is looser the other way."""
    one = changed("gate.beat.champion", margin)
    one = changed("rollout.canary.steps", steps, changed("gate.segments.by", by, one))
    one = changed("rollout.verdict.deadline", f"{days}d", one)
    assert policy_diff(one, Policy.model_validate(one.model_dump(mode="json"))) == ()
    two = changed("rollout.verdict.deadline", f"{other}d", one)
    opposite = {Way.STRICTER: Way.LOOSER, Way.LOOSER: Way.STRICTER, Way.SIDEWAYS: Way.SIDEWAYS}
    there, back = policy_diff(one, two), policy_diff(two, one)
    assert [(c.key, opposite[c.way]) for c in there] == [(c.key, c.way) for c in back]
