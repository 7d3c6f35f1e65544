"""Steps of a policy that no model can ever reach, and rules that can never bind. Pure."""

from __future__ import annotations

import math
from datetime import timedelta

from contracts.policy import Policy
from contracts.times import write_duration
from registry.policy_findings import Findings, Surroundings, error, note, warning

_DAY = timedelta(days=1)
_QUARTER = 90  # days of the shortest quarter


def reachable(policy: Policy, around: Surroundings) -> Findings:
    """Waiting that outlasts its own deadline, counts that the traffic never gives, rules that shut each other out."""
    yield from _durations(policy, around)
    yield from _retraining(policy)
    yield from _freezes(policy)
    if around.decisions_per_day is not None:
        yield from _traffic(policy, around.decisions_per_day)
        yield from _pairs(policy, around, around.decisions_per_day)
    yield from _rows(policy, around)


def _durations(policy: Policy, around: Surroundings) -> Findings:
    rule, shadow, canary = policy.rollout, policy.rollout.shadow, policy.rollout.canary
    baking = canary.bake * len(canary.steps)
    if shadow.min_days * _DAY >= rule.verdict.deadline:
        what = (
            f"a shadow lasts at least {shadow.min_days:g} days, the deadline is {write_duration(rule.verdict.deadline)}"
        )
        why = "every challenger is held for a person before it may leave shadow"
        yield error("shadow-outlasts-deadline", "rollout.shadow.min_days", what, why, "a longer deadline or fewer days")
    if baking > rule.verdict.deadline:
        what = f"{len(canary.steps)} steps of {write_duration(canary.bake)} are more than the deadline of "
        what += write_duration(rule.verdict.deadline)
        why = "what is still open after the last bake is held at once, with no time left for the verdict"
        yield warning(
            "deadline-shorter-than-baking", "rollout.verdict.deadline", what, why, "a deadline beyond the steps"
        )
    whole = shadow.min_days * _DAY + baking + (around.label_delay or timedelta(0))
    if rule.expires < whole:
        what = (
            f"a challenger expires after {write_duration(rule.expires)}, its whole trial takes {_days(whole)} at least"
        )
        why = "every challenger is sent away before its trial can end"
        yield error("expires-before-trial-ends", "rollout.expires", what, why, f"more than {_days(whole)}")
    if policy.gate.approvals.expires < _DAY and _asks(policy):
        what = f"an approval holds for {write_duration(policy.gate.approvals.expires)}"
        why = "rollouts are looked at once a day by the loop: an approval may be gone before anybody looks"
        yield warning("approval-expires-unseen", "gate.approvals.expires", what, why, "a day or more")
    if policy.training.history < policy.training.every * policy.training.origins:
        span = write_duration(policy.training.every * policy.training.origins)
        what = f"training looks back {write_duration(policy.training.history)}, its backtest origins span {span}"
        why = "a model is judged over a longer past than it learns from"
        yield warning(
            "history-shorter-than-backtest", "training.history", what, why, "a longer history, or fewer origins"
        )


def _asks(policy: Policy) -> bool:
    """Whether anything waits for a person at all."""
    steps = policy.automate
    modes = (steps.promote_to_shadow, steps.promote_to_canary, steps.promote_to_champion)
    return policy.gate.approvals.required > 0 or "approval" in modes


def _retraining(policy: Policy) -> Findings:
    rule, drift = policy.retrain, policy.drift
    age = rule.when.max_age
    if age is not None and rule.cooldown > age:
        what = f"the cooldown of {write_duration(rule.cooldown)} is longer than max_age, {write_duration(age)}"
        why = "age asks for a retraining that the cooldown forbids, and alerts about it until it has passed"
        yield warning("cooldown-longer-than-age", "retrain.cooldown", what, why, "a cooldown below max_age")
    most = math.ceil(rule.budget.per / max(rule.cooldown, timedelta(seconds=1)))
    if most <= rule.budget.runs:
        what = f"the cooldown allows at most {most} runs in {write_duration(rule.budget.per)}, the budget "
        what += str(rule.budget.runs)
        why = "the budget never binds; only the cooldown does"
        yield note("budget-never-binds", "retrain.budget", what, why, "fewer runs, a longer span, or leave it")
    if age is not None and drift.every * rule.when.violations > age:
        what = f"{rule.when.violations} windows, one every {write_duration(drift.every)}, take longer than max_age"
        why = "a model is trained again by age before violations can ask for it"
        yield warning(
            "violations-after-age", "retrain.when.violations", what, why, "fewer violations, or a later max_age"
        )
    if drift.window < drift.every:
        what = f"windows of {write_duration(drift.window)} are judged every {write_duration(drift.every)}"
        why = "decisions between two windows are never judged"
        yield warning("decisions-never-judged", "drift.window", what, why, "a window as long as the time between looks")


def _freezes(policy: Policy) -> Findings:
    for place, freeze in enumerate(policy.rollout.freeze):
        if freeze.quarter_end is not None and freeze.quarter_end * 2 > _QUARTER:
            what = f"nothing goes forward in the last {freeze.quarter_end} days of every quarter"
            why = "a rollout has less than half of the year"
            yield warning("frozen-most-of-the-time", f"rollout.freeze.{place}", what, why, "a shorter freeze")


def _traffic(policy: Policy, per_day: float) -> Findings:
    rule, canary, rails = policy.rollout, policy.rollout.canary, policy.rollout.guardrails
    days = rule.verdict.deadline / _DAY
    if rule.shadow.min_decisions > per_day * days:
        what = (
            f"{rule.shadow.min_decisions} decisions are wanted in shadow; {per_day:.1f} a day make {per_day * days:.0f}"
        )
        why = f"every challenger is held at the deadline of {days:g} days"
        yield error("shadow-never-full", "rollout.shadow.min_decisions", what, why, f"at most {int(per_day * days)}")
    first = per_day * canary.steps[0] / 100
    if rails.min_decisions > first * days:
        what = f"the first step of {canary.steps[0]}% answers about {first:.1f} decisions a day, guardrails want "
        what += f"{rails.min_decisions}"
        why = f"guardrails stay open until the deadline of {days:g} days, and the canary is held"
        yield error(
            "canary-never-judged", "rollout.guardrails.min_decisions", what, why, "a larger first step, or fewer"
        )
    elif rails.min_decisions > first * (canary.bake / _DAY):
        what = f"the first step bakes {write_duration(canary.bake)} and answers {first * (canary.bake / _DAY):.0f} "
        what += f"decisions in it, guardrails want {rails.min_decisions}"
        why = f"the step lasts about {_days(_DAY * (rails.min_decisions / first))}"
        do = f"min_decisions of {int(first * (canary.bake / _DAY))} or less, or leave it"
        yield note("bake-shorter-than-evidence", "rollout.canary.bake", what, why, do)
    yield from _exposure(policy, per_day)
    if policy.drift.min_rows > per_day * (policy.drift.window / _DAY):
        what = f"a window of {write_duration(policy.drift.window)} holds about "
        what += f"{per_day * (policy.drift.window / _DAY):.0f} decisions, the judge wants {policy.drift.min_rows}"
        why = "every window has not enough data: nothing is ever found, and violations never retrain"
        yield error("window-never-judged", "drift.min_rows", what, why, "fewer rows, or a longer window")


def _exposure(policy: Policy, per_day: float) -> Findings:
    canary, rails = policy.rollout.canary, policy.rollout.guardrails
    if canary.max_decisions is None:
        return
    if canary.max_decisions < rails.min_decisions:
        what = f"a canary may answer {canary.max_decisions} decisions, guardrails want {rails.min_decisions}"
        why = "it is held before its guardrails can pass"
        yield error("cap-below-evidence", "rollout.canary.max_decisions", what, why, f"at least {rails.min_decisions}")
        return
    needed = sum(per_day * step / 100 * (canary.bake / _DAY) for step in canary.steps)
    if canary.max_decisions < needed:
        what = f"the steps answer about {needed:.0f} decisions while they bake, the cap is {canary.max_decisions}"
        why = "a canary is held before its last step has baked"
        yield warning("cap-below-baking", "rollout.canary.max_decisions", what, why, f"about {needed:.0f} or more")


def _pairs(policy: Policy, around: Surroundings, per_day: float) -> Findings:
    rule, canary = policy.rollout.verdict, policy.rollout.canary
    delay = around.label_delay or timedelta(days=policy.horizon or 0)
    there = policy.rollout.shadow.min_days * _DAY + canary.bake * (len(canary.steps) - 1) + rule.deadline
    mature = per_day * max(0.0, (there - delay) / _DAY)
    if rule.min_pairs > mature:
        what = f"{rule.min_pairs} pairs are wanted; outcomes take {_days(delay)}, so about {mature:.0f} mature in "
        what += f"{_days(there)}"
        why = "accuracy is never judged, and every challenger is held at the deadline"
        yield error("pairs-never-mature", "rollout.verdict.min_pairs", what, why, "fewer pairs, or a later deadline")


def _rows(policy: Policy, around: Surroundings) -> Findings:
    if around.scored_rows is not None and policy.gate.min_rows > around.scored_rows:
        what = f"the gate wants {policy.gate.min_rows} rows, the newest backtest scored {around.scored_rows}"
        why = "every candidate is inconclusive and is held"
        yield error(
            "gate-never-judges", "gate.min_rows", what, why, f"at most {around.scored_rows}, or a longer history"
        )
    for name, slices in around.segment_rows.items():
        if name not in policy.gate.segments.by or not slices:
            continue
        few = sorted(label for label, rows in slices.items() if rows < policy.gate.segments.min_rows)
        if len(few) == len(slices):
            what = f"no {name} has {policy.gate.segments.min_rows} rows; the largest has {max(slices.values())}"
            why = "the segment is inconclusive, so no candidate ever passes"
            yield error("segments-never-judged", "gate.segments.min_rows", what, why, f"at most {max(slices.values())}")
        elif few:
            what = (
                f"{len(few)} of {len(slices)} values of {name} have fewer rows than {policy.gate.segments.min_rows}: "
            )
            why = "a candidate may lose there unseen"
            what += ", ".join(few[:5]) + (", ..." if len(few) > 5 else "")
            yield note("segments-unjudged", "gate.segments.min_rows", what, why, "fewer rows, or leave it")


def _days(span: timedelta) -> str:
    return f"{span / _DAY:.1f} days"
