"""Combinations of a policy's settings that let a wrong model through, each with the reason. Pure."""

from __future__ import annotations

from contracts.policy import Policy
from registry.policy_findings import Findings, error, note, warning

WORST_MARGIN = -0.05
MOST_ALPHA, LEAST_CONFIDENCE = 0.1, 0.9
LARGEST_FIRST_STEP = 50
MOST_MARGIN = 0.1
_LOOSE = {"error_rate": 0.2, "invalid_rate": 0.2, "fallback_rate": 0.5, "p99_ms": 10_000.0, "prediction_shift_psi": 3.0}


def unsafe(policy: Policy) -> Findings:
    """Margins, error rates, steps, ladders and automation that do not protect from a wrong model."""
    yield from _gate(policy)
    yield from _trial(policy)
    yield from _serving(policy)
    yield from _people(policy)
    yield from _upkeep(policy)


def _gate(policy: Policy) -> Findings:
    gate, margin = policy.gate, policy.rollout.verdict.margin
    if gate.beat.incumbent < 0:
        what = f"a candidate may be {-gate.beat.incumbent:.0%} worse than the incumbent rule"
        why = "a model that does not beat the rule costs more than it brings"
        yield error("worse-than-the-rule", "gate.beat.incumbent", what, why, "0 or more")
    if gate.beat.champion < WORST_MARGIN:
        what = f"a candidate may be {-gate.beat.champion:.0%} worse than the champion"
        why = "one such step after the other loses the skill that the champion has"
        yield warning("margin-lets-worse-in", "gate.beat.champion", what, why, f"{WORST_MARGIN:g} or more")
    if -gate.beat.champion > margin:
        what = f"the gate lets through {-gate.beat.champion:.0%} worse, the verdict rejects from {margin:.0%} worse"
        why = "trials are begun that the accuracy verdict has to end"
        yield warning("gate-looser-than-verdict", "gate.beat.champion", what, why, f"at least {-margin:g}")
    if gate.confidence < LEAST_CONFIDENCE:
        what = f"the gate is content with a confidence of {gate.confidence:.0%}"
        why = f"{1 - gate.confidence:.0%} of candidates that are no better pass by chance"
        yield warning("confidence-too-low", "gate.confidence", what, why, f"{LEAST_CONFIDENCE:g} or more")
    rule = gate.calibration
    if (rule.ece_max if policy.kind == "risk" else rule.coverage or rule.bias_max) is None:
        what = "no range of calibration is declared"
        why = "a model may rank well and still say 90% where it should say 50%; decisions are made on the figure"
        do = "ece_max" if policy.kind == "risk" else "coverage and bias_max"
        yield warning("calibration-unjudged", "gate.calibration", what, why, do)
    if rule.coverage is not None and policy.kind == "forecast":
        nominal = policy.training.quantiles[-1] - policy.training.quantiles[0]
        if not rule.coverage[0] <= nominal <= rule.coverage[1]:
            what = f"the widest interval is made to cover {nominal:.0%}, the gate wants {rule.coverage[0]:.0%} to "
            what += f"{rule.coverage[1]:.0%}"
            why = "a well calibrated candidate fails"
            yield error(
                "coverage-against-quantiles", "gate.calibration.coverage", what, why, "other quantiles or range"
            )


def _trial(policy: Policy) -> Findings:
    rule, shadow, canary = policy.rollout.verdict, policy.rollout.shadow, policy.rollout.canary
    if rule.metric != policy.gate.metric:
        what = f"the verdict is named for {rule.metric}, losses are measured in the gate's {policy.gate.metric}"
        why = "margin and bound of one loss are held against figures of another"
        yield error("verdict-of-another-metric", "rollout.verdict.metric", what, why, f"{policy.gate.metric}")
    if rule.alpha > MOST_ALPHA:
        what = f"one wrong verdict in {1 / rule.alpha:.0f} is accepted, at every challenger"
        why = "guardrails and accuracy are tested at this rate; over a year of challengers one is wrongly let in or out"
        yield warning("alpha-too-high", "rollout.verdict.alpha", what, why, f"{MOST_ALPHA:g} or less")
    if rule.margin > MOST_MARGIN:
        what = f"a challenger that is {rule.margin:.0%} worse than the champion still passes"
        why = "that is more than most retrainings bring"
        yield warning("margin-too-wide", "rollout.verdict.margin", what, why, f"{MOST_MARGIN:g} or less")
    if rule.margin > policy.gate.segments.max_regression:
        what = f"the whole may lose {rule.margin:.0%}, a segment {policy.gate.segments.max_regression:.0%}"
        why = "the verdict tolerates more than the gate allows in any one segment"
        yield warning("margin-over-regression", "rollout.verdict.margin", what, why, "at most the segments' regression")
    if canary.steps[0] > LARGEST_FIRST_STEP:
        what = f"the canary begins with {canary.steps[0]}% of decisions"
        why = "most customers meet a version that has answered nobody yet"
        yield warning("first-step-too-large", "rollout.canary.steps", what, why, f"{LARGEST_FIRST_STEP}% or less")
    for name, value in (("min_decisions", shadow.min_decisions), ("min_days", shadow.min_days)):
        if value == 0:
            what = f"{name} of the shadow is 0"
            why = "a challenger may answer before it was watched" if not shadow.min_decisions else "a single day says "
            why += "" if not shadow.min_decisions else "nothing of the next weekday"
            yield warning("no-shadow", f"rollout.shadow.{name}", what, why, "at least a week of decisions")
    yield from _rails(policy)


def _rails(policy: Policy) -> Findings:
    auto = policy.automate.promote_to_champion == "auto" and policy.gate.approvals.required == 0
    for name, loose in _LOOSE.items():
        value = float(getattr(policy.rollout.guardrails, name))
        if value >= loose:
            what = f"{name} tolerates {value:g}"
            why = "nothing that goes wrong within minutes stops a canary"
            if auto:
                why += ", and nobody is asked before it becomes champion"
            yield warning("guardrail-never-binds", f"rollout.guardrails.{name}", what, why, f"well below {loose:g}")


def _serving(policy: Policy) -> Findings:
    ladder = policy.serve.ladder
    if "champion" not in ladder:
        what = "the champion is not on the ladder"
        why = "every decision of its arm comes from a lower rung, and what was promoted is never served"
        yield error("ladder-without-champion", "serve.ladder", what, why, "champion as the first rung")
    elif ladder[0] != "champion":
        what = f"the ladder begins with {ladder[0]}"
        why = "the champion answers only where that one cannot"
        yield warning("champion-not-first", "serve.ladder", what, why, "champion as the first rung")
    if "incumbent" not in ladder:
        what = "the incumbent rule is not on the ladder"
        why = "when the model cannot answer, the caller gets a refusal where the rule had an answer"
        yield warning("ladder-without-incumbent", "serve.ladder", what, why, "incumbent before refuse")


def _people(policy: Policy) -> Findings:
    rule, auto = policy.gate.approvals, policy.automate
    asked = rule.required > 0 or "approval" in (
        auto.promote_to_shadow,
        auto.promote_to_canary,
        auto.promote_to_champion,
    )
    if asked and not rule.by:
        what = "approvals are asked for, and no role is named"
        why = "whoever may approve anything at all may approve this model"
        yield warning("anybody-approves", "gate.approvals.by", what, why, "name the titles that may")
    if asked and not rule.not_author:
        what = "the author of a version may approve it"
        why = "a second pair of eyes is what the approval is for"
        yield warning("author-approves", "gate.approvals.not_author", what, why, "true")
    if not asked and rule.by:
        what = f"roles are named ({', '.join(rule.by)}) and nothing waits for an approval"
        why = "they are never asked"
        yield note(
            "approvers-never-asked", "gate.approvals.by", what, why, "required: 1, or an automate step on approval"
        )
    if not asked:
        what = "training, shadow, canary and promotion run without a person"
        why = "gate and guardrails alone decide; that is a choice to make knowingly"
        yield note("nobody-is-asked", "automate", what, why, "promote_to_champion: approval, or leave it")
    if not policy.owner.notify:
        what = "the owner names nowhere to send notices to"
        why = "a hold at the deadline waits for a person who is not told"
        yield warning("nobody-is-told", "owner.notify", what, why, "an address like mailto:owner@example.org")
    for place, address in enumerate(policy.owner.notify):
        if not address.startswith(("mailto:", "https://", "http://")):
            what = f"{address!r} is no mailto: or https: address"
            yield warning(
                "notice-goes-nowhere", f"owner.notify.{place}", what, "nobody is told", "mailto:name@example.org"
            )


def _upkeep(policy: Policy) -> Findings:
    if policy.retrain.veto == "none":
        what = "a retraining runs on broken data too"
        why = "a model learns the fault of its source, and passes a gate that was fed by the same source"
        yield warning("no-veto", "retrain.veto", what, why, "data_broken")
    costs = policy.business.costs
    if not any((costs.loss, costs.retrain, costs.review, costs.alarm)):
        what = "no costs are declared"
        why = "a replay of this policy tells losses and counts, and no sum"
        yield note("no-costs", "business.costs", what, why, "loss, retrain, review and alarm, in one currency")
