"""What is wrong with a policy beyond its schema: names that do not exist, unreachable steps, unsafe settings.

Pure: a policy and what is known around it in, findings out.
"""

from __future__ import annotations

from contracts.errors import nearest
from contracts.policy import Policy
from registry.policy_findings import Findings, PolicyFinding, Severity, Surroundings, error, warning
from registry.policy_reach import reachable
from registry.policy_safety import unsafe


def policy_check(policy: Policy, around: Surroundings) -> tuple[PolicyFinding, ...]:
    """Everything that speaks against a policy.

    Args:
        policy: as read from its file, so that its schema holds.
        around: what it refers to; figures that are not known are not held against it.

    Returns:
        findings, errors first, then warnings, then notes; empty when nothing is to be said.
    """
    found = [*references(policy, around), *reachable(policy, around), *unsafe(policy)]
    order = list(Severity)
    return tuple(sorted(found, key=lambda finding: order.index(finding.severity)))


def references(policy: Policy, around: Surroundings) -> Findings:
    """Names in the policy that nothing answers to."""
    yield from _known("features", "unknown-service", policy.features, around.services, "feature service")
    yield from _known("incumbent", "unknown-incumbent", policy.incumbent, around.incumbents, f"{policy.kind} rule")
    keys = (*around.composites, *around.fields)
    yield from _known("rollout.canary.key", "unknown-canary-key", policy.rollout.canary.key, keys, "canary key")
    missing = [part for part in around.composites.get(policy.rollout.canary.key, ()) if part not in around.fields]
    if missing:
        what = f"the canary key {policy.rollout.canary.key} needs {', '.join(missing)}, "
        what += f"which no {policy.kind} request has"
        why = "no decision would have the key, so no canary would ever answer one"
        yield error("canary-key-of-another-kind", "rollout.canary.key", what, why, _one_of(keys))
    for name, allowed in policy.rollout.canary.segments.items():
        key = f"rollout.canary.segments.{name}"
        yield from _known(key, "unknown-canary-segment", name, around.fields, "request field")
        if not allowed:
            why = "the canary is kept out of every decision, so its steps end at the deadline without evidence"
            yield error(
                "empty-canary-segment", key, f"no value of {name} is allowed", why, "name values, or drop the key"
            )
    for place, name in enumerate(policy.gate.segments.by):
        yield from _known(
            f"gate.segments.by.{place}", "unknown-gate-segment", name, around.segments, "column of a backtest"
        )
    yield from _roles(policy, around)
    yield from _kind(policy)


def _known(key: str, name: str, value: str, known: tuple[str, ...], what: str) -> Findings:
    if value in known:
        return
    close = nearest(value, known)
    do = f"did you mean {close!r}?" if close else _one_of(known)
    why = f"nothing can be trained, tried or served with a {what} that does not exist"
    yield error(name, key, f"there is no {what} {value!r}", why, do)


def _one_of(known: tuple[str, ...]) -> str:
    return f"one of {', '.join(known)}" if known else "none is declared: declare it first"


def _roles(policy: Policy, around: Surroundings) -> Findings:
    wanted = policy.gate.approvals.by
    if around.titles is None:
        return
    for place, role in enumerate(wanted):
        if role not in around.titles:
            why = "an approval from a role that nobody holds never comes" if len(wanted) == 1 else "it approves nothing"
            do = "issue a key with that title, or name one of " + (", ".join(around.titles) or "the titles that exist")
            yield warning("unheld-role", f"gate.approvals.by.{place}", f"nobody holds the title {role!r}", why, do)


def _kind(policy: Policy) -> Findings:
    """Settings of the other kind of model: their figure is never measured, so the gate never passes."""
    rule = policy.gate.calibration
    other = (
        {"coverage": rule.coverage, "bias_max": rule.bias_max} if policy.kind == "risk" else {"ece_max": rule.ece_max}
    )
    for name in [name for name, value in other.items() if value is not None]:
        what = f"{name} is not measured of a {policy.kind} model"
        why = "a figure that was not measured is inconclusive, so no candidate ever passes"
        yield error("calibration-of-another-kind", f"gate.calibration.{name}", what, why, "drop the key")
    if policy.training.monotone and policy.kind == "forecast":
        why = "only a risk's trees take known signs; a forecast would be trained without"
        yield warning("signs-of-another-kind", "training.monotone", "signs are declared", why, "drop the key")
