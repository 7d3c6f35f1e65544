"""`seatrial policy replay`: recorded history under another policy, beside what happened, checked against itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from contracts.errors import InputInvalid, UsageError
from contracts.policy import Policy
from contracts.times import iso
from lifecycle.policy_files import Recorded, recorded_policy
from lifecycle.policy_replay_course import Course, Span, Suppose, sail_again
from lifecycle.policy_replay_history import History
from lifecycle.policy_replay_scores import Scores
from lifecycle.policy_replay_side import (
    Happening,
    Side,
    compared_losses,
    cost,
    recorded_side,
    replayed_side,
    with_losses,
)
from lifecycle.progress import Progress, quiet
from lifecycle.workspace import Workspace
from registry.policy_diff import policy_diff


@dataclass(frozen=True)
class Check:
    """How well the recorded policy, replayed, comes to what happened; `differing` and `causes` in words."""

    moves: tuple[int, int]
    windows: tuple[int, int]
    retrains: tuple[int, int]
    answers: tuple[int, int]
    differing: tuple[str, ...]
    causes: tuple[str, ...]

    @property
    def words(self) -> str:
        """The check in a sentence."""
        of = [f"{n} of {m} {what}" for (n, m), what in zip(self._pairs(), self._names(), strict=True)]
        return f"the recorded policy replayed: {', '.join(of)} reproduced"

    def _pairs(self) -> tuple[tuple[int, int], ...]:
        return self.moves, self.retrains, self.windows, self.answers

    def _names(self) -> tuple[str, ...]:
        return "moves", "retrainings", "windows", "answers (to the last bit)"


@dataclass(frozen=True)
class Replayed:
    """Both sides of a replay, its self-check, and the sums."""

    policy: Policy
    recorded: Recorded
    span: Span
    happened: Side
    replayed: Side
    course: Course
    check: Check
    losses: dict[str, Any]
    cost_happened: dict[str, float]
    cost_replayed: dict[str, float]


def replay_policy(
    ws: Workspace,
    policy: Policy,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    suppose: Suppose | None = None,
    progress: Progress = quiet,
) -> Replayed:
    """Run recorded history through a policy and through the one that it was recorded under.

    Args:
        ws: the workspace whose history it is; nothing in it is changed.
        policy: to replay under.
        since, until: what to replay; from the first version to the last thing recorded when not given.
        suppose: see `Suppose`.
        progress: told (stage, share of the stage done).

    Raises:
        InputInvalid: no policy is on record, or this one asks for other features than history was recorded with.
        UsageError: a span without history. NotEnoughData: nothing was recorded. ArtifactRefused: files are gone.
    """
    progress("reading history", 0.0)
    history = History(ws, policy)
    recorded = recorded_policy(ws, policy.model)
    _comparable(policy, recorded.policy)
    span = Span(since or history.first, until or history.last + timedelta(microseconds=1))
    _within(span, history)
    scores = Scores(history.records, ws.declarations, policy.features)
    scores.score(history.models(), progress)
    supposed = suppose or Suppose()
    before = sail_again(history, scores, recorded.policy, span, Suppose(), _as("recorded policy", progress))
    same = policy.hash == recorded.policy.hash and supposed == Suppose()
    course = before if same else sail_again(history, scores, policy, span, supposed, _as("new policy", progress))
    progress("measuring", 0.0)
    now = max(ws.clock.now(), history.last)
    happened, replayed = recorded_side(history, recorded.policy, span), replayed_side(course, span)
    check = _check(history, scores, recorded, happened, replayed_side(before, span))
    for side in (happened, replayed):
        with_losses(side, history, policy, ws.declarations, now)
    losses = compared_losses(happened, replayed, policy)
    costs = policy.business.costs
    return Replayed(
        policy=policy,
        recorded=recorded,
        span=span,
        happened=happened,
        replayed=replayed,
        course=course,
        check=check,
        losses=losses,
        cost_happened=cost(happened, costs, losses["total_happened"]),
        cost_replayed=cost(replayed, costs, losses["total_replayed"]),
    )


def _comparable(policy: Policy, recorded: Policy) -> None:
    for name in ("kind", "features"):
        wanted, got = getattr(recorded, name), getattr(policy, name)
        if wanted != got:
            hint = "what other features would have said was not recorded"
            raise InputInvalid(f"policy of {policy.model}", f"{name} {wanted!r}, as recorded", repr(got), hint=hint)


def _within(span: Span, history: History) -> None:
    if span.since >= span.until or span.until <= history.first or span.since > history.last:
        have = f"{iso(history.first)} to {iso(history.last)}"
        raise UsageError(f"nothing is recorded from {iso(span.since)} to {iso(span.until)}; history goes from {have}")


def _as(who: str, progress: Progress) -> Progress:
    return lambda stage, share: progress(f"{who}: {stage}", share)


def _check(history: History, scores: Scores, recorded: Recorded, happened: Side, again: Side) -> Check:
    """Holds the recorded policy's replay against what happened."""
    moved, other = _moves(happened), _moves(again)
    kept, left = _matched(moved, other)
    trained, retrained = _matched(happened.of("retraining"), again.of("retraining"))
    seen = {(w.version, w.end): w for w in again.windows}
    windows = sum(_same_verdict(window, seen.get((window.version, window.end))) for window in happened.windows)
    _, extra = _matched(other, moved)
    differing = [f"{one.at:%Y-%m-%d} {one.words} happened, not in the replay" for one in (*left, *retrained)]
    differing += [f"{one.at:%Y-%m-%d} {one.words} in the replay, did not happen: {one.reason}" for one in extra]
    whole = windows == len(happened.windows) and not differing
    return Check(
        moves=(kept, len(moved)),
        windows=(windows, len(happened.windows)),
        retrains=(trained, len(happened.of("retraining"))),
        answers=scores.reproduced(),
        differing=tuple(differing),
        causes=() if whole else _causes(history, scores, recorded),
    )


def _moves(side: Side) -> list[Happening]:
    return [one for one in side.happenings if one.kind not in ("retraining", "alert", "approved")]


def _matched(wanted: list[Happening], found: list[Happening]) -> tuple[int, list[Happening]]:
    """How many of `wanted` are in `found` within a day, each taken once, and which are not."""
    free, missing = list(found), []
    for one in wanted:
        near = [o for o in free if o.identity == one.identity and abs(o.at - one.at) <= timedelta(days=1)]
        if near:
            free.remove(near[0])
        else:
            missing.append(one)
    return len(wanted) - len(missing), missing


def _same_verdict(window: Any, again: Any) -> bool:
    if again is None or window.health is not again.health or (window.loss is None) != (again.loss is None):
        return False
    return window.loss is None or math.isclose(window.loss, again.loss, rel_tol=1e-9)


def _causes(history: History, scores: Scores, recorded: Recorded) -> tuple[str, ...]:
    """What a replay of the recorded policy cannot repeat, as far as it is known."""
    found = []
    if recorded.changes > 1:
        found.append(f"{recorded.changes} policies were recorded; the newest was replayed throughout")
    if scores.unusable:
        found.append(f"{scores.unusable} decisions were made on other feature declarations and cannot be scored again")
    codes = {str(row.payload.get("code_revision", "")) for row in history.registrations} - {history.ws.revision}
    if codes:
        found.append(f"history was made by other code ({', '.join(sorted(codes))}) than runs now")
    return tuple(found)


def as_plain(found: Replayed) -> dict[str, Any]:
    """The replay as one JSON object."""
    changes = policy_diff(found.recorded.policy, found.policy)
    check = found.check
    return {
        "model": found.policy.model,
        "from": iso(found.span.since),
        "to": iso(found.span.until),
        "policy": {
            "recorded": found.recorded.policy.hash,
            "recorded_in": found.recorded.record,
            "replayed": found.policy.hash,
            "changes": [f"{c.key}: {c.old} -> {c.new} ({c.way}: {c.means})" for c in changes],
        },
        "self_check": {
            "words": check.words,
            "moves": list(check.moves),
            "retrains": list(check.retrains),
            "windows": list(check.windows),
            "answers": list(check.answers),
            "differing": list(check.differing),
            "causes": list(check.causes),
        },
        "happened": _plain_side(found.happened, found.cost_happened),
        "replayed": _plain_side(found.replayed, found.cost_replayed),
        "loss": {name: _finite(value) for name, value in found.losses.items()},
        "currency": found.policy.business.costs.currency,
        "not_known": [f"{at:%Y-%m-%d} {words}" for at, words in found.course.notes],
        "waited": [f"{at:%Y-%m-%d} {words}" for at, words in found.course.waits],
    }


def _plain_side(side: Side, costs: dict[str, float]) -> dict[str, Any]:
    return {
        "happenings": [{"at": iso(one.at), "what": one.words, "why": one.reason} for one in side.happenings],
        "counts": side.counts(),
        "answered_by": side.answered(),
        "retrainings": side.retrains,
        "reviews": side.reviews,
        "alarms": side.alarms,
        "cost": costs,
    }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
