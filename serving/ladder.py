"""The ladder: which rungs are tried, in which order, and what their failures and the features' state say. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from contracts.decisions import Answer, Rung, Step, ViewRead
from contracts.policy import RungName


@dataclass(frozen=True)
class Attempt:
    """One rung's try. `failure` says why it gave no answer ("code: words"), empty when it did."""

    rung: Rung
    version: str | None = None
    steps: tuple[Step, ...] = ()
    probability: float | None = None
    reasons: tuple[str, ...] = ()
    failure: str = ""


MODELS = (Rung.CHAMPION, Rung.CANARY, Rung.PREVIOUS_CHAMPION)


def rungs(ladder: Sequence[RungName], arm: str, *, stopped: bool = False) -> tuple[Rung, ...]:
    """The policy's rungs in order for one decision; the canary stands before the champion on its own arm.

    Of a stopped model only the rungs below its versions are left.

    >>> [rung.value for rung in rungs(("champion", "incumbent", "refuse"), "canary")]
    ['canary', 'champion', 'incumbent', 'refuse']
    """
    named = tuple(Rung(name) for name in ladder)
    if stopped:
        return tuple(rung for rung in named if rung not in MODELS)
    return (Rung.CANARY, *named) if arm == "canary" else named


def climb(order: Iterable[Rung], attempt: Callable[[Rung], Attempt], concerns: Sequence[str] = ()) -> Answer:
    """The first rung's answer that holds, with everything that failed before it.

    Args:
        order: rungs, best first; `refuse` needs no attempt and ends the climb.
        attempt: the try of one rung; must not raise.
        concerns: what is wrong with the features; recorded whatever rung answers.

    Returns:
        an answer whose `degraded` lists the concerns and each failed rung as "rung: code: words". When every rung
        failed it is a refusal, and the list is its reason.
    """
    degraded = list(concerns)
    for rung in order:
        if rung is Rung.REFUSE:
            break
        tried = attempt(rung)
        if not tried.failure:
            return Answer.model_construct(
                rung=rung,
                version=tried.version,
                steps=tried.steps,
                probability=tried.probability,
                reasons=tried.reasons,
                degraded=tuple(degraded),
            )
        degraded.append(f"{rung.value}: {tried.failure}")
    reasons = tuple(degraded) or ("refuse: no rung of the ladder can answer",)
    return Answer(rung=Rung.REFUSE, degraded=reasons)


def feature_concerns(
    views: Iterable[ViewRead], optional: frozenset[str], max_age: timedelta, standing: frozenset[str] = frozenset()
) -> tuple[str, ...]:
    """What is wrong with the features as read, one sentence a view, each once.

    Args:
        views: as read for the decision.
        optional: views whose absence and age say nothing (a promotion plan holds rows only for what was announced).
        max_age: the policy's limit for a row's age; an age of exactly that is still allowed.
        standing: views whose rows hold until they change: only their own ttl makes them stale.
    """
    limit = max_age.total_seconds()
    found: dict[str, None] = {}
    for view in views:
        if view.view in optional:
            continue
        if view.status == "missing":
            found[f"missing: {view.view} has no row for this key"] = None
        elif view.status == "stale" or (view.view not in standing and (view.age_s or 0.0) > limit):
            age = (view.age_s or 0.0) / 3600
            found[f"stale: {view.view} is {age:.1f} h old, allowed {limit / 3600:g} h"] = None
    return tuple(found)
