"""One course of history under one policy: the code that runs live, on recorded decisions, a day at a time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from contracts.decisions import DecisionRecord, ShadowScore
from contracts.errors import LedgerBroken
from contracts.monitoring import MonitorDecision, Response, WindowVerdict
from contracts.policy import Policy
from contracts.rollout import Action, LedgerRow, RolloutState, RowKind
from contracts.times import SetClock, iso
from drift.monitor import Monitor
from drift.psi import measure
from lifecycle.policy_replay_answers import Answering
from lifecycle.policy_replay_gate import gate_again
from lifecycle.policy_replay_history import History
from lifecycle.policy_replay_scores import Scores
from lifecycle.progress import Progress
from lifecycle.rollouts import advance, seen, under_trial
from lifecycle.workspace import Workspace
from registry.fold import fold
from registry.ledger import MemoryLedger, RowDraft, chained, head
from registry.promotion import Registrar

SAME_DAY = timedelta(days=1)
_BY_PERSON = ("held", "resumed", "rejected", "rollback", "stopped", "released", "approve", "override")
MOVES = (
    RowKind.SHADOW_STARTED,
    RowKind.CANARY_STEP,
    RowKind.HELD,
    RowKind.RESUMED,
    RowKind.PROMOTED,
    RowKind.REJECTED,
    RowKind.ROLLED_BACK,
    RowKind.SUPERSEDED,
    RowKind.EXPIRED,
)


@dataclass(frozen=True)
class Span:
    """What is replayed: [since, until]; `look`: how often the rollout is looked at, from midnight to midnight."""

    since: datetime
    until: datetime
    look: timedelta = SAME_DAY


@dataclass(frozen=True)
class Suppose:
    """What history cannot say and a replay has to suppose.

    `approve_after`: people agree this long after they were first asked (None: only as they did). `only_asked`: leave
    out candidates of retrainings that the replayed policy did not ask for.
    """

    approve_after: timedelta | None = None
    only_asked: bool = False


@dataclass
class Course:
    """What a replay came to.

    Attributes:
        rows: the ledger as it would stand. records: decisions as they would have been answered, by time.
        windows, responses: of the judge and the policy, by time. asked: when a retraining was started by the policy.
        notes: (moment, words) of what could not be known or was judged otherwise than live.
        waits: (moment, words) of moves that waited for a person.
    """

    rows: tuple[LedgerRow, ...] = ()
    records: list[DecisionRecord] = field(default_factory=list)
    windows: list[WindowVerdict] = field(default_factory=list)
    responses: list[tuple[datetime, MonitorDecision]] = field(default_factory=list)
    asked: list[datetime] = field(default_factory=list)
    trained: list[tuple[datetime, str]] = field(default_factory=list)
    notes: list[tuple[datetime, str]] = field(default_factory=list)
    waits: list[tuple[datetime, str]] = field(default_factory=list)


def sail_again(
    history: History, scores: Scores, policy: Policy, span: Span, suppose: Suppose, progress: Progress
) -> Course:
    """Run a span of recorded history under a policy.

    Before the span everything is as recorded. In it, versions come when history made them; decisions are routed and
    answered anew from what every version says to them; shadow, maturity, judge, triggers, gate and rollout are the code
    that runs live, on a ledger in memory. At each moment only what was known then is used.

    Returns:
        the course; nothing of the workspace was changed.
    """
    with _harbour(history, policy, span.since) as (ws, registrar):
        return _Voyage(history, scores, policy, span, suppose, ws, registrar).run(progress)


@contextmanager
def _harbour(history: History, policy: Policy, since: datetime) -> Iterator[tuple[Workspace, Registrar]]:
    """A workspace in a temporary folder with the ledger of before `since` in memory, and the real sealed artifacts."""
    with TemporaryDirectory(prefix="seatrial-replay-") as folder:
        home = Path(folder)
        settings = history.ws.settings.model_copy(update={"home": home, "ledger_url": "", "tracking_uri": ""})
        settings.artifacts.symlink_to(history.ws.settings.artifacts.absolute())
        clock = SetClock(min(since, history.rows[0].at))
        ws = Workspace(settings, clock)
        ledger = MemoryLedger()
        for row in history.rows:
            if row.at < since:
                ledger.append(_draft(row, row.request_id), row.revision - 1)
        registrar = Registrar(ledger, ws.artifacts, settings.serving, None, clock, settings.actor)
        ws.__dict__.update(registrar=registrar, policies={policy.model: policy}, declarations=history.ws.declarations)
        yield ws, registrar


def _draft(row: LedgerRow, request_id: str) -> RowDraft:
    return RowDraft(row.model, row.kind, row.version, row.at, row.actor, row.reason, request_id, row.payload)


class _Voyage:
    def __init__(
        self,
        history: History,
        scores: Scores,
        policy: Policy,
        span: Span,
        suppose: Suppose,
        ws: Workspace,
        registrar: Registrar,
    ) -> None:
        self.history, self.policy, self.span, self.suppose = history, policy, span, suppose
        self.ws, self.registrar = ws, registrar
        self.clock: SetClock = registrar.clock  # type: ignore[assignment]
        self.course = Course()
        self.answering = Answering(scores, policy, history.ws.declarations)
        self.monitor = Monitor(ws.settings, policy, history.ws.declarations, distance=measure)
        self._times = [record.as_of for record in history.records]
        self._shadowed = bisect_left(self._times, span.since)
        self._fresh: list[DecisionRecord] = []
        self._monitored = span.since
        self._asked_first: dict[tuple[str, str, int], datetime] = {}

    def run(self, progress: Progress) -> Course:
        self._before()
        moments = sorted({*self._looks(), *(row.at for row in self._acts())})
        previous = self.span.since
        looks = set(self._looks())
        for moment in moments:
            self._answer(previous, moment)
            self.clock.set(moment)
            if moment in looks:
                self._look(moment)
            for row in self._acts():
                if row.at == moment:
                    self._act(row)
            previous = moment
            whole = (self.span.until - self.span.since) or SAME_DAY
            progress(f"replaying {moment:%Y-%m-%d}", (moment - self.span.since) / whole)
        self._answer(previous, self.span.until)
        self.course.rows = tuple(self.registrar.ledger.rows(self.policy.model))
        return self.course

    def _looks(self) -> list[datetime]:
        first = self.span.since.replace(hour=0, minute=0, second=0, microsecond=0)
        count = int((self.span.until - first) / self.span.look)
        found = [first + self.span.look * number for number in range(1, count + 1)]
        return [moment for moment in found if moment > self.span.since]

    def _acts(self) -> list[LedgerRow]:
        """Registrations, and what people did, in the span."""
        inside = [row for row in self.history.rows if self.span.since <= row.at <= self.span.until]
        return [row for row in inside if row.kind is RowKind.REGISTERED or by_person(row)]

    def _before(self) -> None:
        """Everything until the span begins, as it was recorded."""
        since, known = self.span.since, self.history.records[: self._shadowed]
        for verdict in self.history.windows:
            if verdict.end <= since:
                self.monitor.watcher.log.append(verdict)
                self._monitored = verdict.end
        self.course.records += known
        self.registrar.projection.write(self.policy)
        self.clock.set(since)
        shadow = [score for score in self.history.shadow if score.as_of < since]
        self.monitor.update(self.history, since, records=known, shadow=shadow)
        state = self._state()
        for version in [v for v in state.manifests if v not in state.gates]:
            self._gate(version)

    def _state(self) -> RolloutState:
        return self.registrar.state(self.policy.model)

    def _answer(self, since: datetime, until: datetime) -> None:
        """Decisions in [since, until), by what is in service."""
        low, high = bisect_left(self._times, since), bisect_left(self._times, until)
        snapshot = self.registrar.projection.snapshot(self.policy.model)
        for place in range(max(low, len(self.course.records)), high):
            record = self.answering.record(place, snapshot)
            self.course.records.append(record)
            self._fresh.append(record)

    def _look(self, now: datetime) -> None:
        """What the loop does at a day's end."""
        state = self._state()
        scores = self._shadow() if under_trial(state) else []
        self.monitor.update(self.history, now, records=self._fresh, shadow=scores)
        self._fresh = []
        if under_trial(state):
            self._advance(now)
        if now - self._monitored >= self.policy.drift.every:
            self._watch(now)

    def _shadow(self) -> list[ShadowScore]:
        """Scores by whoever of challenger and champion did not answer, as the shadow scorer gives them."""
        snapshot = self.registrar.projection.snapshot(self.policy.model)
        found: list[ShadowScore] = []
        for place in range(self._shadowed, len(self.course.records)):
            score = self.answering.shadow(place, self.course.records[place], snapshot)
            if score is not None:
                found.append(score)
        self._shadowed = len(self.course.records)
        return found

    def _advance(self, now: datetime) -> None:
        state = self._state()
        action, _ = advance(self.ws, self.policy, now, evidence=seen(self.monitor, state, now))
        if action.needs_approval and self._agreed(action, now):
            state = self._state()
            advance(self.ws, self.policy, now, evidence=seen(self.monitor, state, now))

    def _agreed(self, action: Action, now: datetime) -> bool:
        """Whether people agree by now, as supposed; the first time that they are asked is kept."""
        key = (str(action.version), action.move.value, action.step)
        if key not in self._asked_first:
            self._asked_first[key] = now
            self.course.waits.append((now, f"{action.move} of {action.version} waits for a person: {action.reason}"))
        after, rule = self.suppose.approve_after, self.policy.gate.approvals
        if after is None or now - self._asked_first[key] < after:
            return False
        role = rule.by[0] if rule.by else ""
        for number in range(max(1, rule.required)):
            self.registrar.approve(
                self.policy.model,
                self.policy,
                approver=f"supposed-{number + 1}",
                reason="supposed by the replay",
                role=role,
                version=action.version,
            )
        return True

    def _watch(self, now: datetime) -> None:
        self._monitored = now
        state = self._state()
        if state.champion is None:
            return
        window, response = self.monitor.run(state, now, unsafe=self.history.unsafe(now))
        self.course.windows.append(window)
        self.course.responses.append((now, response))
        if response.response is Response.RETRAIN and not under_trial(state):
            self.course.asked.append(now)
            self.registrar.request_retrain(self.policy, response.reason, iso(now))
            if not any(abs(row.at - now) <= SAME_DAY for row in self.history.registrations):
                self.course.notes.append(
                    (now, f"a retraining is asked for, no such candidate exists: {response.reason}")
                )

    def _act(self, row: LedgerRow) -> None:
        if row.kind is RowKind.REGISTERED:
            self._candidate(row)
            return
        rows = self.registrar.ledger.rows(row.model)
        newest = head(rows, row.model)
        draft = _draft(row, f"recorded:{row.request_id}")
        try:
            fold((*rows, chained(draft, newest.revision + 1, newest.hash)), row.model)
        except LedgerBroken as error:
            words = f"{row.actor} recorded {row.kind} of {row.version}, which is not possible here: {error.why}"
            self.course.notes.append((row.at, words))
            return
        self.registrar.ledger.append(draft, newest.revision)
        self.registrar.projection.write(self.policy)

    def _candidate(self, row: LedgerRow) -> None:
        asked = any(abs(at - row.at) <= SAME_DAY for at in self.course.asked)
        retrained = any(abs(at - row.at) <= SAME_DAY for at in self.history.retrains)
        if retrained and not asked:
            words = f"history trained {row.version} here, this policy would not have"
            left = "; left out" if self.suppose.only_asked else "; it is tried all the same"
            self.course.notes.append((row.at, words + left))
            if self.suppose.only_asked:
                return
            self.registrar.request_retrain(self.policy, words, iso(row.at))
        self.course.trained.append((row.at, row.version))
        newest = head(self.registrar.ledger.rows(row.model), row.model)
        self.registrar.ledger.append(_draft(row, row.request_id), newest.revision)
        self._gate(row.version)

    def _gate(self, version: str) -> None:
        """The version's recorded backtest through this policy's gate, and the rollout's first move."""
        now = self.clock.now()
        verdict, notes = gate_again(self.history, version, self.policy, self._state().champion, now)
        self.course.notes += [(now, words) for words in notes]
        self.registrar.record_gate(self.policy, version, verdict)
        if self._state().challenger == version:
            advance(self.ws, self.policy, now, verdict=verdict)


def by_person(row: LedgerRow) -> bool:
    """True for a row that somebody wished by hand, not the policy."""
    return row.request_id.split(":", 1)[0] in _BY_PERSON and row.kind is not RowKind.REGISTERED
