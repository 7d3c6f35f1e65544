"""Rollouts simulated through the real state machine: paired losses of known means in, looked at every day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from contracts.policy import Policy
from contracts.rollout import Action, LedgerRow, Move, OnlineEvidence, RowKind
from registry.fold import fold
from registry.ledger import GENESIS, RowDraft, chained
from registry.rollout import next_action

Floats = NDArray[np.float64]
START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS, ALPHA = 60, 0.05
_ROWS = {
    Move.STEP_CANARY: RowKind.CANARY_STEP,
    Move.PROMOTE: RowKind.PROMOTED,
    Move.REJECT: RowKind.REJECTED,
    Move.HOLD: RowKind.HELD,
    Move.ROLL_BACK: RowKind.ROLLED_BACK,
}
ENDS = (Move.PROMOTE, Move.REJECT, Move.HOLD, Move.ROLL_BACK)


@dataclass(frozen=True)
class Case:
    """One kind of challenger.

    `worse`: its mean loss relative to the champion's, less 1; `margin`: of the policy; `base`: share of late shipments;
    `memory`: lag-1 correlation of the daily shock that both share; `delays`: labels mature 1 to 7 days later, not on
    the day; `bad_day`: on one day in twenty it loses this much more, made up for on the others; `errors`: share of its
    answers that are errors.
    """

    name: str
    worse: float = 0.0
    margin: float = 0.0
    base: float = 0.2
    per_day: int = 40
    memory: float = 0.0
    delays: bool = False
    bad_day: float = 0.0
    errors: float = 0.0


@dataclass(frozen=True)
class Pairs:
    """Losses of both on the same decisions, (days, a day), and the day on which each pair is known."""

    challenger: Floats
    champion: Floats
    known: NDArray[np.int64]


@dataclass(frozen=True)
class End:
    """How a rollout ended: its last move (STAY: still open after all days), on which day, with how many pairs."""

    move: Move
    day: int
    pairs: int
    reason: str


def policy(margin: float) -> Policy:
    """A risk policy whose only open question is the accuracy verdict."""
    rollout = {
        "shadow": {"min_decisions": 50, "min_days": 7},
        "canary": {"key": "lane", "steps": [10, 50], "bake": "4d"},
        "guardrails": {"min_decisions": 10, "error_rate": 0.01},
        "verdict": {"metric": "brier", "alpha": ALPHA, "min_pairs": 200, "margin": margin, "deadline": f"{DAYS}d"},
    }
    sections = {
        "model": "late_delivery",
        "kind": "risk",
        "owner": {"team": "simulated"},
        "business": {"hypothesis": "none", "metric": "none"},
        "features": "late_delivery_v1",
        "incumbent": "rolling_late_rate",
        "gate": {"metric": "brier"},
        "rollout": rollout,
    }
    return Policy.model_validate(sections)


def draw(case: Case, rng: np.random.Generator) -> Pairs:
    """Brier losses of two models of equal noise on the same shipments, the challenger's then made worse by the case."""
    shape = (DAYS, case.per_day)
    truth = np.clip(rng.beta(2, 2 / case.base - 2, shape), 0.005, 0.995)
    shock = np.zeros(DAYS)
    for day, push in enumerate(rng.normal(0, 0.05, DAYS)):
        shock[day] = (case.memory * shock[day - 1] if day else 0.0) + push
    late = rng.random(shape) < np.clip(truth + shock[:, None], 0, 1)
    champion, challenger = ((np.clip(truth + rng.normal(0, 0.05, shape), 0.001, 0.999) - late) ** 2 for _ in range(2))
    factor = np.full(DAYS, 1 + case.worse)
    if case.bad_day:
        bad = rng.random(DAYS) < 0.05
        factor += np.where(bad, case.bad_day, -case.bad_day * 0.05 / 0.95)
    known = np.arange(DAYS)[:, None] + (rng.integers(1, 8, shape) if case.delays else 0)
    return Pairs(challenger * factor[:, None], champion, np.broadcast_to(known, shape).astype(np.int64))


def roll(case: Case, pairs: Pairs, rules: Policy, rng: np.random.Generator) -> End:
    """One rollout from shadow to its end, a look a day, each move decided by `next_action` and folded from its row."""
    rows = _begun()
    state, entered, day_of = fold(rows), 0, np.repeat(np.arange(DAYS), case.per_day)
    known, mine, theirs = pairs.known.ravel(), pairs.challenger.ravel(), pairs.champion.ravel()
    order = np.lexsort((day_of, known))
    names = np.array([(START + timedelta(days=day)).date().isoformat() for day in range(DAYS)])[day_of]
    bad = rng.random(DAYS * case.per_day) < case.errors
    for day in range(1, DAYS + 1):
        now = START + timedelta(days=day)
        there = order[known[order] < day]
        decisions = round((day - entered) * case.per_day * (state.share or 1.0))
        seen = OnlineEvidence(
            decisions=decisions,
            days=float(day - entered),
            pairs_challenger=tuple(mine[there].tolist()),
            pairs_champion=tuple(theirs[there].tolist()),
            pair_blocks=tuple(names[there].tolist()),
            errors=int(bad[entered * case.per_day :][:decisions].sum()),
        )
        action = next_action(state, rules, None, seen, now, bound=1.0)
        if action.move in ENDS:
            return End(action.move, day, len(there), action.reason)
        if action.move is Move.STEP_CANARY:
            rows, entered = (*rows, _after(rows, action, now)), day
            state = fold(rows)
    return End(Move.STAY, DAYS, len(there), "open")


def naive(case: Case, pairs: Pairs) -> Move:
    """A two-sided paired t-test over all pairs, looked at on the same days: the first p below alpha decides."""
    from scipy.stats import t as student

    excess = (pairs.challenger - (1 + case.margin) * pairs.champion).ravel()
    known = pairs.known.ravel()
    for day in range(1, DAYS + 1):
        seen = excess[known < day]
        if len(seen) < 200:
            continue
        figure = float(seen.mean() / (seen.std(ddof=1) / np.sqrt(len(seen))))
        if 2 * student.sf(abs(figure), len(seen) - 1) < ALPHA:
            return Move.REJECT if figure > 0 else Move.PROMOTE
    return Move.STAY


def _begun() -> tuple[LedgerRow, ...]:
    rows: tuple[LedgerRow, ...] = ()
    for kind, version in (
        *((kind, "v1") for kind in (RowKind.REGISTERED, RowKind.GATED, RowKind.PROMOTED)),
        *((kind, "v2") for kind in (RowKind.REGISTERED, RowKind.GATED, RowKind.SHADOW_STARTED)),
    ):
        rows = (*rows, _row(rows, kind, version, START, {"manifest_sha256": version, "outcome": "pass"}))
    return rows


def _after(rows: tuple[LedgerRow, ...], action: Action, now: datetime) -> LedgerRow:
    return _row(rows, _ROWS[action.move], "v2", now, {"step": action.step, "share": action.share})


def _row(
    rows: tuple[LedgerRow, ...], kind: RowKind, version: str, at: datetime, payload: dict[str, object]
) -> LedgerRow:
    draft = RowDraft("late_delivery", kind, version, at, "simulated", "", f"{kind}:{len(rows)}", payload)
    return chained(draft, len(rows) + 1, rows[-1].hash if rows else GENESIS)
