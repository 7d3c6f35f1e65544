"""The model card as plain data: what it is for, what made it, how it did, where it is weak, what is asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts.canonical import canonical_json
from contracts.evaluation import Evaluation, TrainedModel
from contracts.policy import Policy
from contracts.times import iso, write_duration
from models.card_page import card_page
from models.forecaster import ForecastModel
from models.risk import RiskModel

CARD_FORMAT = 2
SHOWN_COLUMNS = 20


def write_card(out: Path, policy: Policy, trained: TrainedModel, model: ForecastModel | RiskModel) -> None:
    """Write card.json and card.html into `out`, where evaluation.json and the figures lie already."""
    card = card_of(policy, trained, model.importance(), model.version_info)
    (out / "card.json").write_text(canonical_json(card), encoding="utf-8")
    (out / "card.html").write_text(card_page(out), encoding="utf-8")


def card_of(
    policy: Policy, trained: TrainedModel, importance: Mapping[str, float], info: Mapping[str, Any]
) -> dict[str, Any]:
    """The card of a candidate.

    Args:
        policy: of the model. trained: the candidate.
        importance: column -> share, largest first. info: the model's `version_info`.
    """
    found = trained.evaluation
    return {
        "format": CARD_FORMAT,
        "model": policy.model,
        "kind": policy.kind,
        "purpose": _purpose(policy),
        "hypothesis": policy.business.hypothesis,
        "business_metric": policy.business.metric,
        "owner": policy.owner.team,
        "notify": list(policy.owner.notify),
        "summary": _summary(policy, found),
        "data": _data(policy, found, info),
        "sources": found.dataset.get("sources", []),
        "segments": list(policy.gate.segments.by),
        "calibration": found.calibration,
        "importance": dict(list(importance.items())[:SHOWN_COLUMNS]),
        "gates": gate_terms(policy),
        "after_the_gate": _rollout(policy),
        "limits": _limits(policy, found),
        "provenance": {
            "trained at": iso(trained.trained_at),
            "dataset": trained.dataset_hash,
            "policy": policy.hash,
            "features": policy.features,
            "seed": str(info.get("seed", policy.training.seed)),
            "parameters": canonical_json(trained.params) if trained.params else "as shipped",
        },
    }


def _purpose(policy: Policy) -> str:
    if policy.kind == "forecast":
        levels = ", ".join(f"{level:g}" for level in policy.training.quantiles)
        return (
            f"Forecasts demand of one sku at one location for {policy.horizon} steps ahead: "
            f"a mean and quantiles at {levels}, in units."
        )
    words = policy.model.replace("_", " ")
    return f"Gives the probability of {words}, from what is known at the moment of the decision."


def _summary(policy: Policy, found: Evaluation) -> str:
    whole = found.metrics[(found.metrics["segment"] == "") & (found.metrics["slice"] == "")]
    figure = whole[whole["metric"] == policy.gate.metric].set_index("who")["value"].to_dict()
    mine, rule = figure["candidate"], figure["incumbent"]
    change = (rule - mine) / rule if rule else float("nan")
    words = f"{policy.gate.metric} {mine:.4g} against {rule:.4g} of the rule {policy.incumbent}"
    return f"{words}: {abs(change):.1%} {'less' if change >= 0 else 'more'} loss, on {found.dataset['rows']} rows."


def _data(policy: Policy, found: Evaluation, info: Mapping[str, Any]) -> dict[str, str]:
    plan, dataset = policy.training, found.dataset
    return {
        "learnt from": f"{info['rows']} rows decided from {info['rows_from'][:10]} to {info['rows_until'][:10]}",
        "history": f"up to {write_duration(plan.history)} back, at most {plan.row_cap} rows a fit",
        "tried on": f"{dataset['rows']} rows decided from {dataset['as_of_from'][:10]} to "
        f"{dataset['as_of_until'][:10]}; {len(dataset['origins'])} origins every {write_duration(plan.every)}, each "
        "answered by a model fitted on what was known at it",
        "leakage audit": _audit(dataset),
    }


def _audit(dataset: Mapping[str, Any]) -> str:
    audit = dataset.get("leakage_audit")
    if not audit:
        return "none"
    words = f"{audit['cells']} values of {audit['rows']} rows recomputed from the events, {audit['differing']} differ"
    doubtful = [*audit.get("derived", []), *audit.get("implausible", [])]
    return f"{words}; doubtful: {', '.join(doubtful)}" if doubtful else words


def gate_terms(policy: Policy) -> list[dict[str, str]]:
    """What the gate will ask of this model, a sentence a criterion: the policy's thresholds in words."""
    gate = policy.gate
    terms = [("rows", f"at least {gate.min_rows} scored rows, each once")]
    terms.append(("leakage audit", "no audited value differs from what was known, no feature is made from the label"))
    for rival, margin in (("incumbent", gate.beat.incumbent), ("champion", gate.beat.champion)):
        name = f"the rule {policy.incumbent}" if rival == "incumbent" else "the champion, where there is one"
        wanted = f"more than {margin:.1%} better than" if margin >= 0 else f"not more than {-margin:.1%} worse than"
        terms.append((f"beat {rival}", f"{gate.metric} {wanted} {name} (bound at {gate.confidence:.0%})"))
    rule = gate.segments
    terms += [
        (f"segment {by}", f"no {by} with {rule.min_rows} rows or more worse by over {rule.max_regression:.1%}")
        for by in rule.by
    ]
    limits = gate.calibration
    if limits.ece_max is not None:
        terms.append(("calibration", f"ECE at most {limits.ece_max:g}"))
    if limits.coverage is not None:
        terms.append(("coverage", f"of the widest interval from {limits.coverage[0]:g} to {limits.coverage[1]:g}"))
    if limits.bias_max is not None:
        terms.append(("bias", f"within {limits.bias_max:g} of 0"))
    return [{"name": name, "asks": asks} for name, asks in terms]


def _rollout(policy: Policy) -> list[str]:
    plan, rule = policy.rollout, policy.gate.approvals
    steps, guard = ", ".join(f"{step}%" for step in plan.canary.steps), plan.guardrails
    fast = f"errors up to {guard.error_rate:.1%}, fallbacks up to {guard.fallback_rate:.1%}"
    lines = [
        f"Shadow: at least {plan.shadow.min_decisions} decisions and {plan.shadow.min_days:g} days.",
        f"Canary: {steps} of the traffic by {plan.canary.key}, {write_duration(plan.canary.bake)} each.",
        f"Guardrails: {fast}, 99th percentile up to {guard.p99_ms:g} ms.",
        f"When it may not answer: {', then '.join(policy.serve.ladder)}.",
    ]
    author = ", not by who registered it" if rule.not_author else ""
    who = f"{rule.required} by {', '.join(rule.by) or 'anybody'}{author}" if rule.required else "none asked for"
    lines.append(f"Approvals: {who}.")
    return lines


def _limits(policy: Policy, found: Evaluation) -> list[str]:
    """What a reader has to know before relying on it: what was not scored, and segments that do worse than the rule."""
    unscored = found.dataset["not_comparable"]
    lines = [f"{unscored} rows could not be scored because model or rule had no history."] if unscored else []
    if "champion_unusable" in found.dataset:
        lines.append(f"Not compared with the champion: {found.dataset['champion_unusable']}.")
    table = found.metrics[(found.metrics["metric"] == policy.gate.metric) & (found.metrics["segment"] != "")]
    wide = table.pivot_table(index="segment", columns="who", values="value", aggfunc="first")
    if {"candidate", "incumbent"} <= set(wide.columns):
        worse = wide[wide["candidate"] > wide["incumbent"]]
        lines += [f"Worse than the rule where {name}." for name in worse.index]
    unsafe = [s for s in found.dataset.get("sources", []) if s.get("reasons")]
    lines += [f"Source {s['source'] or s['kind']} ({s['kind']}) was {s['state']}: {s['reasons']}." for s in unsafe]
    if policy.kind == "forecast":
        lines.append("Demand on days that were closed or out of stock was neither learnt from nor scored.")
    else:
        lines.append("Cases without an outcome (cancelled, diverted) were neither learnt from nor scored.")
    return lines
