"""A rollout as a person reads it: who serves and why, who challenges, what is waited for, who did what lately."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from textwrap import shorten
from typing import Any

from contracts.policy import Policy
from contracts.rollout import Action, LedgerRow, Move, RolloutState, RowKind, Stage
from registry.freezes import frozen
from registry.rollout import approvals_needed

LAST_ROWS = 8
_REASON = 110


def plain(state: RolloutState) -> dict[str, Any]:
    """The state in a few plain values, for scripts."""
    return {
        "model": state.model,
        "revision": state.revision,
        "champion": state.champion or "none",
        "previous_champion": state.previous_champion or "none",
        "challenger": state.challenger or "none",
        "stage": state.stage.value,
        "share": state.share,
        "since": state.since.isoformat() if state.since else "",
        "stopped": state.stopped,
    }


def told(
    state: RolloutState, rows: Sequence[LedgerRow], policy: Policy, following: Action, now: datetime
) -> dict[str, Any]:
    """The state with its reasons and evidence.

    Args:
        state: folded from `rows`.
        rows: the model's ledger.
        policy: the one in force.
        following: what `next_action` would do now.
        now: the time, for expiries and freezes.
    """
    found: dict[str, Any] = plain(state)
    if state.champion:
        found["champion_is"] = _champion(state, rows)
    if state.challenger:
        found["challenger_is"] = _challenger(state, rows, policy)
        found["approvals"] = _approvals(state, policy, following, now)
    found["next"] = _next(following, state)
    found["freeze"] = frozen(policy, now) or "none"
    found["last"] = {str(row.revision): _line(row) for row in rows[-LAST_ROWS:]}
    return found


def _champion(state: RolloutState, rows: Sequence[LedgerRow]) -> dict[str, Any]:
    version = state.champion or ""
    moves = (RowKind.PROMOTED, RowKind.ROLLED_BACK)
    crowned = next(r for r in reversed(rows) if r.kind in moves and version in (r.version, r.payload.get("to")))
    why = shorten(crowned.reason, 2 * _REASON, placeholder=" ...")
    return {
        "since": _when(state.champion_since),
        "made_by": _author(state, version),
        "in_office": f"{crowned.kind.value.replace('_', ' ')} by {crowned.actor}: {why}",
        "gate": _gate(rows, version),
    }


def _challenger(state: RolloutState, rows: Sequence[LedgerRow], policy: Policy) -> dict[str, Any]:
    version, steps = state.challenger or "", policy.rollout.canary.steps
    stands = f"{state.stage} since {_when(state.since)}"
    if state.stage is Stage.CANARY:
        stands += f", step {state.step + 1} of {len(steps)}, {state.share:.0%} of decisions"
    if state.stage is Stage.HELD:
        stands += f", from {state.held_from}"
    verdicts = {name: f"{ruling.outcome} (row {ruling.revision})" for name, ruling in state.verdicts.items()}
    made = {"made_by": _author(state, version), "stands": stands, "gate": _gate(rows, version)}
    return {**made, "verdicts": verdicts or "none yet in this stage"}


def _approvals(state: RolloutState, policy: Policy, following: Action, now: datetime) -> dict[str, Any]:
    """Who agreed, and how many are missing for the move that is due, or for the promotion."""
    given = state.approvals.get(state.challenger or "", ())
    lasts = policy.gate.approvals.expires
    move = following.move if following.needs_approval else Move.PROMOTE
    return {
        "given": [
            f"{one.who}{f' ({one.role})' if one.role else ''} {_when(one.at)}"
            + (", expired" if now >= one.at + lasts else f", holds until {_when(one.at + lasts)}")
            for one in given
        ]
        or "none in this stage",
        "needed": f"{approvals_needed(state, policy, move, following.step, now=now)} more to {_words(move)}",
    }


def _next(following: Action, state: RolloutState) -> str:
    if state.stopped and following.move is Move.STAY:
        return f"wait: {state.model} is stopped ({state.stopped}) until seatrial rollout release"
    if following.move is Move.STAY:
        return f"wait: {following.reason}"
    return f"{_words(following.move)} {following.version}: {following.reason}"


def _words(move: Move) -> str:
    return move.value.replace("_", " ")


def _gate(rows: Sequence[LedgerRow], version: str) -> dict[str, str]:
    """The outcome of the version's newest gate, in words what decided, and the names of what else passed."""
    gates = [row for row in rows if row.kind is RowKind.GATED and row.version == version]
    if not gates:
        return {"outcome": "no gate yet"}
    payload = gates[-1].payload
    criteria = payload.get("criteria", ())
    telling = [c for c in criteria if c["outcome"] != "pass" or c["name"].startswith("beat_")]
    said = {c["name"]: f"{c['outcome']}: {c['words']}" for c in telling}
    rest = ", ".join(c["name"] for c in criteria if c not in telling)
    return {"outcome": f"{payload.get('outcome')} (row {gates[-1].revision})", **said, "also_passed": rest or "nothing"}


def _author(state: RolloutState, version: str) -> str:
    made = state.registered.get(version)
    return f"{made.author}, {_when(made.at)}" if made else "unknown"


def _line(row: LedgerRow) -> str:
    version = f" {row.version}" if row.version else ""
    return (
        f"{_when(row.at)} {row.kind.value}{version} by {row.actor}: {shorten(row.reason, _REASON, placeholder=' ...')}"
    )


def _when(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at else "-"
