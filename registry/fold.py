"""The state of a rollout as a fold over its ledger rows; a row that may not follow is named, never served."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from contracts.errors import LedgerBroken, TimeInvalid
from contracts.rollout import Approval, LedgerRow, Outcome, Registration, RolloutState, RowKind, Ruling, Stage
from contracts.times import parse_time

_STARTED = (Stage.SHADOW, Stage.CANARY)


@dataclass
class _Course:
    """The state so far, and what a row may need of the past: champions in order, versions that wait for the
    challenger's place, and where a held challenger stood."""

    state: RolloutState
    champions: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    held_from: dict[str, Any] = field(default_factory=dict)


def fold(rows: Iterable[LedgerRow], model: str = "") -> RolloutState:
    """The state of one model after its rows.

    A registered version becomes the challenger when there is none; otherwise it waits until a `superseded` row puts it
    in the place of the present one, or that one leaves (the newest that waits comes in). `previous_champion` is whom a
    rollback returns to: the champion before this one that was not itself rolled back. Rolling back the champion holds
    a challenger in shadow or canary (it was compared with the one that left), and a resume sends it back to shadow,
    where approvals have to be given anew. A hold takes the share away; a resume returns to where the hold began.
    Approvals and verdicts count in the stage in which they were given. A stop leaves the challenger where it is; the
    release starts its stage's clock anew.

    Args:
        rows: by revision; their chain is checked elsewhere (registry.ledger.verify).
        model: name for the state of an empty ledger.

    Raises:
        LedgerBroken: a row that no rollout can contain, like a promotion without a recorded passing gate.
    """
    course = _Course(RolloutState(model))
    for row in rows:
        _FOLLOW[row.kind](course, row)
        course.state = replace(course.state, model=row.model, revision=row.revision)
    return course.state


def _refuse(row: LedgerRow, why: str) -> LedgerBroken:
    return LedgerBroken(row.model, row.revision, f"{row.kind} of {row.version}: {why}")


def _must_be_challenger(course: _Course, row: LedgerRow, *stages: Stage) -> None:
    state = course.state
    if row.version != state.challenger or state.stage not in stages:
        wanted = " or ".join(stages)
        raise _refuse(row, f"wanted the challenger in {wanted}, which is {state.challenger} in {state.stage}")


def _must_have_passed(course: _Course, row: LedgerRow) -> None:
    if course.state.gates.get(row.version) != Outcome.PASS:
        raise _refuse(row, "no passing gate was recorded before")


def _must_point_at_its_verdict(course: _Course, row: LedgerRow) -> None:
    """A promotion names the row of its accuracy verdict (ledgers of 0.1 hold none), and that row must say pass."""
    named, ruling = row.payload.get("verdict_revision"), course.state.verdicts.get("accuracy")
    if named is not None and (ruling is None or ruling.revision != named or ruling.outcome is not Outcome.PASS):
        raise _refuse(row, f"revision {named} is no passing accuracy verdict of this stage")


def _registered(course: _Course, row: LedgerRow) -> None:
    state = course.state
    if row.version in state.manifests or not row.payload.get("manifest_sha256"):
        raise _refuse(row, "wanted a new version with its manifest's hash")
    manifests = {**state.manifests, row.version: str(row.payload["manifest_sha256"])}
    carried = row.payload.get("carried")
    authors = tuple(str(name) for name in carried.get("authors", ())) if isinstance(carried, dict) else ()
    registered = {**state.registered, row.version: Registration(row.at, row.actor, authors)}
    course.state = replace(state, manifests=manifests, registered=registered)
    if state.challenger is None:
        _enter(course, row, Stage.CANDIDATE, challenger=row.version)
    else:
        course.waiting.append(row.version)


def _gated(course: _Course, row: LedgerRow) -> None:
    if row.version not in course.state.manifests:
        raise _refuse(row, "the version was not registered")
    try:
        outcome = Outcome(str(row.payload.get("outcome")))
    except ValueError:
        raise _refuse(row, "wanted an outcome: pass, fail or inconclusive") from None
    course.state = replace(course.state, gates={**course.state.gates, row.version: outcome.value})


def _superseded(course: _Course, row: LedgerRow) -> None:
    by = str(row.payload.get("by"))
    _must_be_challenger(course, row, Stage.CANDIDATE, Stage.SHADOW, Stage.CANARY, Stage.HELD)
    if by not in course.waiting or course.state.gates.get(by) != Outcome.PASS:
        raise _refuse(row, f"by {by}, which does not wait with a passing gate")
    course.waiting = [version for version in course.waiting if version != by]
    _enter(course, row, Stage.CANDIDATE, challenger=by)


def _shadow_started(course: _Course, row: LedgerRow) -> None:
    _must_be_challenger(course, row, Stage.CANDIDATE)
    _must_have_passed(course, row)
    if course.state.champion is None:
        raise _refuse(row, "there is no champion to compare with")
    _enter(course, row, Stage.SHADOW, challenger=row.version)


def _canary_step(course: _Course, row: LedgerRow) -> None:
    _must_be_challenger(course, row, Stage.SHADOW, Stage.CANARY)
    step, share = int(row.payload["step"]), float(row.payload["share"])
    if step != course.state.step + 1 or not 0 < share <= 1:
        raise _refuse(row, f"step {step} with share {share} after step {course.state.step}")
    before = course.state
    _enter(course, row, Stage.CANARY, challenger=row.version, step=step, share=share)
    if step > 0:
        course.state = replace(
            course.state, approvals=before.approvals, verdicts=before.verdicts, canary_since=before.canary_since
        )


def _held(course: _Course, row: LedgerRow) -> None:
    _must_be_challenger(course, row, Stage.CANDIDATE, Stage.SHADOW, Stage.CANARY)
    _hold(course, row)


def _hold(course: _Course, row: LedgerRow) -> None:
    state = course.state
    course.held_from = {"stage": state.stage, "step": state.step, "share": state.share}
    course.state = replace(state, stage=Stage.HELD, held_from=state.stage, share=0.0, since=row.at)


def _resumed(course: _Course, row: LedgerRow) -> None:
    _must_be_challenger(course, row, Stage.HELD)
    course.state = replace(course.state, since=row.at, held_from=Stage.NONE, verdicts={}, **course.held_from)


def _verdict(course: _Course, row: LedgerRow) -> None:
    _must_be_challenger(course, row, *_STARTED)
    try:
        ruling = Ruling(Outcome(str(row.payload.get("outcome"))), row.revision)
    except ValueError:
        raise _refuse(row, "wanted an outcome: pass, fail or inconclusive") from None
    verdicts = {**course.state.verdicts, str(row.payload.get("of")): ruling}
    course.state = replace(course.state, verdicts=verdicts)


def _stopped(course: _Course, row: LedgerRow) -> None:
    if course.state.stopped:
        raise _refuse(row, f"the model is stopped already: {course.state.stopped}")
    course.state = replace(course.state, stopped=row.reason or "no reason given")


def _released(course: _Course, row: LedgerRow) -> None:
    if not course.state.stopped:
        raise _refuse(row, "the model is not stopped")
    course.state = replace(course.state, stopped="")
    if course.state.stage in _STARTED:
        course.state = replace(course.state, since=row.at, verdicts={})


def _promoted(course: _Course, row: LedgerRow) -> None:
    first = course.state.champion is None
    _must_be_challenger(course, row, *((Stage.CANDIDATE, Stage.CANARY) if first else (Stage.CANARY,)))
    _must_have_passed(course, row)
    _must_point_at_its_verdict(course, row)
    course.champions.append(row.version)
    _leave(course, row)
    _crown(course, row)


def _rejected(course: _Course, row: LedgerRow) -> None:
    if row.version == course.state.challenger:
        _leave(course, row)
    elif row.version in course.waiting:
        course.waiting.remove(row.version)
    else:
        raise _refuse(row, "wanted the challenger or a version that waits")


def _rolled_back(course: _Course, row: LedgerRow) -> None:
    if row.version == course.state.challenger:
        _leave(course, row)
        return
    if row.version != course.state.champion or len(course.champions) < 2:
        raise _refuse(row, f"the champion is {course.state.champion}, before it {course.state.previous_champion}")
    if row.payload.get("to", course.champions[-2]) != course.champions[-2]:
        raise _refuse(row, f"to {row.payload['to']}, the champion before it is {course.champions[-2]}")
    course.champions.pop()
    _crown(course, row)
    if course.state.stage in _STARTED:
        _hold(course, row)
    if course.held_from.get("stage") in _STARTED:
        course.held_from = {"stage": Stage.SHADOW, "step": -1, "share": 0.0}
        course.state = replace(course.state, held_from=Stage.SHADOW, canary_since=None, approvals={})


def _approved(course: _Course, row: LedgerRow) -> None:
    state = course.state
    _must_be_challenger(course, row, Stage.CANDIDATE, Stage.SHADOW, Stage.CANARY, Stage.HELD)
    manifest = state.manifests[row.version]
    if row.payload.get("manifest_sha256", manifest) != manifest:
        raise _refuse(row, "it is for other files than were registered")
    who, role = str(row.payload.get("approver", row.actor)), str(row.payload.get("role", ""))
    others = tuple(one for one in state.approvals.get(row.version, ()) if one.who != who)
    approvals = {**state.approvals, row.version: (*others, Approval(who, role, row.at))}
    course.state = replace(state, approvals=approvals)


def _retrain_requested(course: _Course, row: LedgerRow) -> None:
    course.state = replace(course.state, retrains=(*course.state.retrains, row.at))


def _alarm_overridden(course: _Course, row: LedgerRow) -> None:
    try:
        end = parse_time(str(row.payload.get("window_end")), "window_end")
    except TimeInvalid as error:
        raise _refuse(row, str(error)) from None
    course.state = replace(course.state, overridden=(*course.state.overridden, end))


def _noted(course: _Course, row: LedgerRow) -> None:
    """A row that says something without moving the rollout."""


def _crown(course: _Course, row: LedgerRow) -> None:
    champions = course.champions
    course.state = replace(
        course.state,
        champion=champions[-1],
        previous_champion=champions[-2] if len(champions) > 1 else None,
        champion_since=row.at,
    )


def _enter(course: _Course, row: LedgerRow, stage: Stage, **change: Any) -> None:
    """A challenger's new stage: the clock starts anew, approvals and verdicts have to be given anew."""
    course.held_from = {}
    fresh: dict[str, Any] = {
        "stage": stage,
        "step": -1,
        "share": 0.0,
        "since": row.at,
        "trial_since": {Stage.SHADOW: row.at, Stage.CANARY: course.state.trial_since}.get(stage),
        "canary_since": row.at if stage is Stage.CANARY else None,
        "held_from": Stage.NONE,
        "approvals": {},
        "verdicts": {},
    }
    course.state = replace(course.state, **{**fresh, **change})


def _leave(course: _Course, row: LedgerRow) -> None:
    """No challenger any more, but for the newest version that waited."""
    _enter(course, row, Stage.NONE, challenger=None, since=None)
    if course.waiting:
        _enter(course, row, Stage.CANDIDATE, challenger=course.waiting[-1])
        course.waiting.clear()


_FOLLOW = {
    RowKind.REGISTERED: _registered,
    RowKind.GATED: _gated,
    RowKind.SUPERSEDED: _superseded,
    RowKind.SHADOW_STARTED: _shadow_started,
    RowKind.CANARY_STEP: _canary_step,
    RowKind.HELD: _held,
    RowKind.RESUMED: _resumed,
    RowKind.PROMOTED: _promoted,
    RowKind.REJECTED: _rejected,
    RowKind.ROLLED_BACK: _rolled_back,
    RowKind.APPROVED: _approved,
    RowKind.RETRAIN_REQUESTED: _retrain_requested,
    RowKind.POLICY_CHANGED: _noted,
    RowKind.VERDICT: _verdict,
    RowKind.ALARM_OVERRIDDEN: _alarm_overridden,
    RowKind.EXPIRED: _rejected,
    RowKind.STOPPED: _stopped,
    RowKind.RELEASED: _released,
    RowKind.KEY_ISSUED: _noted,
    RowKind.KEY_REVOKED: _noted,
}
