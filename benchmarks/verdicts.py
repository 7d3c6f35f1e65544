"""How often a rollout ends wrongly and how long a right end takes, simulated through the real state machine.

Run: `make bench`; writes docs/verdicts.md. Seeds are fixed: the same tables on every machine.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.simulated_rollouts import ALPHA, DAYS, Case, End, draw, naive, policy, roll
from benchmarks.simulated_shifts import shift_table
from contracts.rollout import Move

OUTPUT = Path(__file__).parents[1] / "docs" / "verdicts.md"
EQUAL = (
    (1000, Case("equal")),
    (400, Case("equal, rare outcome (3%)", base=0.03)),
    (400, Case("equal, shocks with memory (0.8)", memory=0.8)),
    (400, Case("equal, labels 1 to 7 days late", delays=True)),
    (400, Case("2% worse, 2% allowed", worse=0.02, margin=0.02)),
    (400, Case("equal, errors just at the limit of 1%", errors=0.01)),
)
OTHERS = (
    (200, Case("5% better", worse=-0.05, margin=0.02)),
    (200, Case("equal", margin=0.02)),
    (200, Case("2% worse", worse=0.02, margin=0.02)),
    (200, Case("5% worse", worse=0.05, margin=0.02)),
    (200, Case("10% worse", worse=0.1, margin=0.02)),
    (100, Case("5% worse, 200 a day", worse=0.05, margin=0.02, per_day=200)),
    (100, Case("10% worse, 200 a day", worse=0.1, margin=0.02, per_day=200)),
)
HIDDEN = (200, Case("bad days", bad_day=1.0))


@dataclass(frozen=True)
class Found:
    """How the rollouts of one case ended, and what the naive test said of the same losses."""

    case: Case
    ends: Sequence[End]
    rival: Sequence[Move]

    def share(self, *moves: Move) -> float:
        """Share of the rollouts that ended with one of the moves."""
        return sum(end.move in moves for end in self.ends) / len(self.ends)

    def rivals(self, *moves: Move) -> float:
        """Share of the naive test's verdicts among the moves."""
        return sum(move in moves for move in self.rival) / len(self.rival)

    def median(self, move: Move) -> tuple[str, str]:
        """Median day and pairs at which rollouts ended with the move."""
        ended = [end for end in self.ends if end.move is move]
        if not ended:
            return "-", "-"
        return f"{statistics.median(e.day for e in ended):.0f}", f"{statistics.median(e.pairs for e in ended):.0f}"


def simulate(runs: int, case: Case, seed: int = 1) -> Found:
    """`runs` rollouts of a case, each with the naive test's verdict on the same losses."""
    rng, rules = np.random.default_rng(seed), policy(case.margin)
    ends, rival = [], []
    for _ in range(runs):
        pairs = draw(case, rng)
        ends.append(roll(case, pairs, rules, rng))
        rival.append(naive(case, pairs))
    return Found(case, ends, rival)


def upper(hits: int, runs: int, confidence: float = 0.95) -> float:
    """One-sided upper confidence bound of a binomial share (Clopper and Pearson 1934)."""
    from scipy.stats import beta

    return 1.0 if hits >= runs else float(beta.ppf(confidence, hits + 1, runs - hits))


def equal_line(found: Found) -> str:
    """A row of the table of wrong verdicts."""
    runs, cells = len(found.ends), []
    for moves in ((Move.REJECT,), (Move.PROMOTE,), (Move.ROLL_BACK,)):
        share = found.share(*moves)
        cells.append(f"{share:.1%} ({upper(round(share * runs), runs):.1%})")
    cells += [f"{found.rivals(Move.REJECT):.1%}", f"{found.rivals(Move.PROMOTE):.1%}"]
    return f"| {found.case.name} | {runs} | {' | '.join(cells)} |"


def other_line(found: Found) -> str:
    """A row of the table of right verdicts."""
    right = Move.PROMOTE if found.case.worse <= found.case.margin else Move.REJECT
    day, pairs = found.median(right)
    rejected, promoted = found.share(Move.REJECT), found.share(Move.PROMOTE)
    rest = 1 - rejected - promoted
    return f"| {found.case.name} | {rejected:.1%} | {promoted:.1%} | {rest:.1%} | {day} | {pairs} |"


def report() -> str:
    """The whole page."""
    hidden = simulate(*HIDDEN)
    parts = [
        _HEAD.format(days=DAYS, alpha=ALPHA),
        *(equal_line(simulate(*one)) for one in EQUAL),
        _RIGHT,
        *(other_line(simulate(*one)) for one in OTHERS),
        _LIMITS.format(ours=hidden.share(Move.PROMOTE), naive=hidden.rivals(Move.PROMOTE)),
        *shift_table(),
        _END,
    ]
    return "\n".join(parts) + "\n"


_HEAD = """# Verdicts of rollouts, simulated

`make bench` writes this page (seeds are fixed). Every rollout goes through the real state machine
(`registry.rollout.next_action`, states folded from ledger rows): seven days of shadow, canary steps of 10% and 50% with
four days each, 40 shipments a day that both versions score, a look **every day** for {days} days, alpha {alpha}. The
losses are Brier losses of two models with independent errors of the same size on the same shipments, whose lateness
shares a daily shock; a challenger that is x% worse has each loss multiplied by 1 + x.

## Wrong verdicts

The challenger is as good as the champion and no margin is allowed, or it is worse by exactly the allowed margin. Then a
rejection and a promotion are both errors, each promised at most {alpha:.0%} of the time **over all looks together**. In
brackets the 95% upper confidence bound. The naive rival is a two-sided paired t-test on the same pairs at the same
looks (from 200 pairs on) that decides at the first p < {alpha}.

| challenger | rollouts | rejected | promoted | rolled back | naive: rejected | naive: promoted |
|---|---|---|---|---|---|---|"""

_RIGHT = """
The verdict does better than its promise because it averages a day's pairs into one before it bets on them
([ADR 6](adr/0006-pairs-and-non-inferiority.md)) and because sixty days are fewer than the for ever that it is made for.

## Right verdicts

With 2% allowed, as the policies of the repository have it. `open` rollouts were neither promoted nor rejected after
60 days: the deadline holds them, and the owner is told what is missing.

| challenger | rejected | promoted | open | median day of the right verdict | median pairs |
|---|---|---|---|---|---|"""

_LIMITS = """
What decides is the number of decisions: with five times the traffic the same difference is found in fewer days.

## What sixty days cannot show

A challenger that is better on nineteen days of twenty, and on the twentieth loses twice as much, so that both are equal
on average: promoted in {ours:.0%} of rollouts, by the naive test in {naive:.0%}. As long as no bad day came, nothing in
the data speaks against it. The bound on losses would protect (the test without `adaptive` bets on its scale) at the
price of thousands of days; the judge after the promotion, and one command back, are what is there for it.

## The shift of predictions

The guardrail on the PSI between both versions' answers to the same decisions, limit 0.25, looked at every 15 decisions
from 30 to 600. Share of rollouts that it ends, of 300: by the PSI as it is (as in 0.1), by the PSI less what two equal
samples would show by chance (Yurdakul), and by the bound that is used (`drift.paired_shift`). A shift with a true PSI
below the limit should end none.

| shift, in spreads | true PSI | agreement | PSI as it is | less chance | bound | median decisions |
|---|---|---|---|---|---|---|"""

_END = """
## What the machine decides where no figure does

- Nothing decided at the deadline: held; the row says what is missing and that the owner can resume, reject or change
  the policy.
- No evidence at `failure_limit` looks in a row: held, never rolled back. An outage of the evidence is no failure of the
  model. The loop counts the looks; the ledger gets no row a look.
- The canary answered `max_decisions` without a verdict: held. It is checked at each look, so what one interval brings
  may come on top.
- Older than `expires`: an `expired` row; the challenger leaves, held or not.
- A freeze: no canary begins or grows, nobody is promoted, a held canary is not resumed. A shadow may start, because it
  serves nobody; hold, reject and rollback are possible at any time. The first champion waits too: the incumbent rule
  answers meanwhile.
- Stopped (`seatrial rollout stop`): no version answers, the rungs below do and say `stopped: why`; shadows pause,
  nothing goes forward. The release starts the stage's clock anew.
- A verdict is a row of its own with its figures, before the move that it causes; a promotion names the revisions of its
  verdict and of its gate, and a promotion that names another row is refused.
- Approvals count in the stage in which they were given, for the files that are registered, until they expire, from the
  roles that the policy names, never the author's where it says so. Refused ones leave a log line and no row.
- Artifacts of former champions are never deleted by Seatrial, so each can be gone back to; the target's files are
  verified before the switch."""


def main() -> None:
    """Simulate, print, write."""
    text = report()
    sys.stdout.write(text)
    OUTPUT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
