"""Verdicts on a challenger in shadow or canary: guardrails that act fast, accuracy that waits for matured labels."""

from __future__ import annotations

import math

from scipy.special import bdtrc

from contracts.policy import LossName, Policy
from contracts.rollout import Criterion, OnlineEvidence, Outcome, Verdict
from contracts.times import iso, write_duration
from registry.evidence import SequentialResult, block_means, rate_evidence, sequential_test
from registry.gate import verdict_of

SLOW_SHARE = 0.01  # what a p99 allows


def guardrails(evidence: OnlineEvidence | None, policy: Policy) -> Verdict:
    """Is the challenger safe to go on with? Errors, invalid answers, fallbacks, latency, shift of predictions.

    Shares of errors, invalid answers and fallbacks fail when it is all but certain (an e-value, valid at every look, so
    that a good challenger is not thrown out by looking often) that the true share is over the limit, even before
    `min_decisions`: over the whole stage (half of alpha), or in any one window of `guardrails.window` (the other half,
    shared by as many windows as there are until the deadline), so that a long good past does not hide that it fails
    now. They pass when the share seen is within the limit over at least `min_decisions`. Latency is the share of
    decisions slower than p99_ms against 1%: a single slow one (a model read from disk) says nothing, so it passes as
    long as that many would come by chance. The shift of predictions passes when the PSI seen is within the limit over
    at least `min_decisions`, and fails when the bound below which it is not by chance is over it (drift.paired_shift).
    What was not measured is left out.

    Returns:
        pass, fail, or inconclusive (too few decisions, or a share over the limit that may be chance).
    """
    rule, alpha = policy.rollout.guardrails, policy.rollout.verdict.alpha
    if evidence is None:
        return verdict_of([Criterion("decisions", Outcome.INCONCLUSIVE, None, None, "no evidence was to be had")])
    total, enough = evidence.decisions, evidence.decisions >= rule.min_decisions
    words = f"{total} decisions, at least {rule.min_decisions} are needed"
    found = [
        Criterion(
            "decisions",
            Outcome.PASS if enough else Outcome.INCONCLUSIVE,
            float(total),
            float(rule.min_decisions),
            words,
        )
    ]
    for name, counted, bad, limit in (
        ("error_rate", "errors", evidence.errors, rule.error_rate),
        ("invalid_rate", "invalid", evidence.invalid, rule.invalid_rate),
        ("fallback_rate", "fallbacks", evidence.fallbacks, rule.fallback_rate),
    ):
        over = _over(counted, bad, limit, evidence, policy)
        found.append(_rate(name, bad, total, limit, over, enough))
    if evidence.slow is not None:
        over = _over("slow", evidence.slow, SLOW_SHARE, evidence, policy)
        found.append(_latency(evidence, rule.p99_ms, alpha, over, enough))
    if evidence.prediction_psi is not None:
        found.append(_shift(evidence.prediction_psi, evidence.prediction_psi_low, rule.prediction_shift_psi, enough))
    return verdict_of(found)


def accuracy(evidence: OnlineEvidence | None, policy: Policy, bound: float) -> tuple[Verdict, SequentialResult | None]:
    """Is the challenger's loss within the policy's margin of the champion's? See evidence.sequential_test.

    pass: not worse than the champion by more than the margin; fail: worse by more than it; both at error rate alpha at
    every look. Pairs that share a block are averaged first: one by one they look like more evidence than they are. With
    fewer than `min_pairs` pairs inconclusive. For rmsse the margin is on the square root of the mean
    loss, as in the gate.

    Args:
        bound: at which losses are winsorised, in units of the verdict's metric.
    """
    rule = policy.rollout.verdict
    pairs = len(evidence.pairs_champion) if evidence else 0
    if evidence is None or pairs < rule.min_pairs:
        words = f"{pairs} matured pairs, at least {rule.min_pairs} are needed"
        few = Criterion("accuracy", Outcome.INCONCLUSIVE, float(pairs), float(rule.min_pairs), words)
        return verdict_of([few]), None
    margin = margin_on_loss(rule.margin, rule.metric)
    challenger, champion = evidence.pairs_challenger, evidence.pairs_champion
    blocked = bool(evidence.pair_blocks)
    if blocked:
        challenger, champion = block_means(challenger, champion, evidence.pair_blocks)
    found = sequential_test(challenger, champion, bound=bound, alpha=rule.alpha, margin=margin, adaptive=blocked)
    words = {
        Outcome.PASS: f"not worse than the champion by {rule.margin:.0%}: e-value {found.e_better:.3g}",
        Outcome.FAIL: f"worse than the champion by more than {rule.margin:.0%}: e-value {found.e_worse:.3g}",
        Outcome.INCONCLUSIVE: (
            f"open after {pairs} pairs in {found.n} blocks: e-values {found.e_better:.3g}, {found.e_worse:.3g} against"
        ),
    }[found.outcome]
    words += f", mean {rule.metric} difference {found.mean_difference:+.4g} ({found.lower:+.4g} to {found.upper:+.4g})"
    value = found.mean_difference if math.isfinite(found.mean_difference) else None
    return verdict_of([Criterion("accuracy", found.outcome, value, rule.margin, words)]), found


def margin_on_loss(margin: float, metric: LossName) -> float:
    """The relative margin on the mean loss that is `margin` on the metric (rmsse is the root of its mean loss)."""
    return (1 + margin) ** 2 - 1 if metric == "rmsse" else margin


def _over(counted: str, bad: int, limit: float, evidence: OnlineEvidence, policy: Policy) -> str:
    """Where the share is all but certainly over its limit, in words; empty when it is not, or the counts cannot be."""
    rule, alpha = policy.rollout.guardrails, policy.rollout.verdict.alpha
    if not 0 <= bad <= evidence.decisions:
        return ""
    if rate_evidence(bad, evidence.decisions, limit) >= 2 / alpha:
        return "over the whole stage"
    windows = math.ceil(policy.rollout.verdict.deadline / rule.window) + 1
    for burst in evidence.bursts:
        count: int = getattr(burst, counted)
        if 0 <= count <= burst.decisions and rate_evidence(count, burst.decisions, limit) >= 2 * windows / alpha:
            return f"{count} of {burst.decisions} in the {write_duration(rule.window)} from {iso(burst.since)}"
    return ""


def _rate(name: str, bad: int, total: int, limit: float, over: str, enough: bool) -> Criterion:
    share = bad / total if total else 0.0
    words = f"{name} {share:.1%} ({bad} of {total}), allowed {limit:.1%}"
    outcome = Outcome.INCONCLUSIVE
    if not 0 <= bad <= total:
        words = f"{name}: {bad} of {total} cannot be"
    elif over:
        outcome, words = Outcome.FAIL, f"{words}: {over}"
    elif enough and share <= limit:
        outcome = Outcome.PASS
    return Criterion(name, outcome, share, limit, words)


def _latency(evidence: OnlineEvidence, limit_ms: float, alpha: float, over: str, enough: bool) -> Criterion:
    slow, total = evidence.slow or 0, evidence.decisions
    p99 = "" if evidence.p99_ms is None else f"p99 {evidence.p99_ms:.3g} ms, "
    words = f"{p99}{slow} of {total} over {limit_ms:g} ms, allowed 1%"
    outcome = Outcome.INCONCLUSIVE
    if not 0 <= slow <= total:
        words = f"latency: {slow} of {total} cannot be"
    elif over:
        outcome, words = Outcome.FAIL, f"{words}: {over}"
    elif enough and _at_least(slow, total, SLOW_SHARE) >= alpha:
        outcome = Outcome.PASS
    return Criterion("p99_ms", outcome, slow / total if total else None, SLOW_SHARE, words)


def _at_least(hits: int, total: int, rate: float) -> float:
    """Chance of `hits` or more among `total` at this rate (binomial)."""
    return float(bdtrc(hits - 1, total, rate)) if hits else 1.0


def _shift(value: float, low: float | None, bound: float, enough: bool) -> Criterion:
    """The PSI of the answers; without a bound on its noise the figure itself decides."""
    certain = value if low is None else low
    words = f"prediction_psi {value:.3g}, of which {max(certain, 0.0):.3g} is not by chance, allowed {bound:g}"
    outcome = Outcome.INCONCLUSIVE
    if enough and math.isfinite(value) and math.isfinite(certain):
        if certain > bound:
            outcome = Outcome.FAIL
        elif value <= bound:
            outcome = Outcome.PASS
    return Criterion("prediction_psi", outcome, value if math.isfinite(value) else None, bound, words)
