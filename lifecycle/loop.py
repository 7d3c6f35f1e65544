"""The loop: land, materialise, decide, mature, monitor, retrain, roll out; one tick after the other, on any clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from contracts.decisions import DecisionRecord
from contracts.errors import NotEnoughData
from contracts.monitoring import MonitorDecision, Response, WindowVerdict
from contracts.policy import Policy
from contracts.rollout import Action, Move, RolloutState, Stage
from contracts.times import SetClock, iso
from lifecycle.pipeline import Trial, build_features, train_candidate
from lifecycle.progress import Progress, quiet
from lifecycle.rollouts import advance, seen, under_trial
from lifecycle.workspace import Workspace

if TYPE_CHECKING:
    from drift.monitor import Monitor
    from features.importer import Staged


@dataclass(frozen=True)
class Ask:
    """One request to the handler at its moment."""

    at: datetime
    request: dict[str, Any]


@dataclass
class Story:
    """What happened to one model, in order."""

    model: str
    records: list[DecisionRecord] = field(default_factory=list)
    trials: list[tuple[datetime, Trial]] = field(default_factory=list)
    moves: list[tuple[datetime, Action]] = field(default_factory=list)
    shares: list[tuple[datetime, RolloutState]] = field(default_factory=list)
    windows: list[WindowVerdict] = field(default_factory=list)
    responses: list[tuple[datetime, MonitorDecision]] = field(default_factory=list)
    retrains: int = 0
    landed: int = 0
    quarantined: int = 0
    guarantee_violations: int = 0

    def count(self, move: Move) -> int:
        """How often the rollout made a move."""
        return sum(1 for _, action in self.moves if action.move is move)


class Loop:
    """Runs one model through time.

    Args:
        ws: the workspace; its clock is set by the loop.
        policy: the model's policy.
        staged: events by when they became known.
        clock: the workspace's clock.
        tick: how often events land and features are materialised.
        progress: told (stage, share of the stage done).
    """

    def __init__(
        self,
        ws: Workspace,
        policy: Policy,
        staged: Staged,
        clock: SetClock,
        *,
        tick: timedelta,
        progress: Progress = quiet,
    ) -> None:
        self.ws, self.policy, self.staged, self.clock = ws, policy, staged, clock
        self.tick, self.progress = tick, progress
        self.story = Story(policy.model)
        self._fresh: list[DecisionRecord] = []
        self._landed_until: datetime | None = None
        self._monitored: datetime | None = None
        self._monitor: Monitor = ws.monitor(policy.model)

    def learn(self, until: datetime) -> Trial:
        """Land everything known by `until`, build features and put the first candidate through the gate.

        Returns:
            the first trial; the gate decides whether it becomes champion.
        """
        self.clock.set(until)
        self._land(until)
        self.progress("features", 0.0)
        build_features(self.ws, self.policy, until)
        trial = self._train(until, self.progress)
        self._monitored = until
        return trial

    def run(self, until: datetime, asks: Callable[[datetime, datetime], Sequence[Ask]]) -> None:
        """Live from the clock's present to `until`, tick by tick.

        Args:
            until: end of the run, not included.
            asks: the requests of a span [from, to), in order of time.
        """
        start = now = self.clock.now()
        while now < until:
            following = min(now + self.tick, until)
            self._live(now, following, asks(now, following))
            if following.date() != now.date():
                self._day_ends(following)
            now = following
            self.progress(f"living {now:%Y-%m-%d}", (now - start) / (until - start))

    def _land(self, until: datetime) -> None:
        from features.importer import land_slice

        for receipt in land_slice(self.staged, self.ws.landing, self._landed_until, until):
            if not receipt.already:
                self.story.landed += receipt.landed
                self.story.quarantined += receipt.quarantined
        self._landed_until = until

    def _live(self, now: datetime, following: datetime, asks: Sequence[Ask]) -> None:
        self.clock.set(now)
        self._land(now)
        build_features(self.ws, self.policy, now)
        answer = self.ws.handler.forecast if self.policy.kind == "forecast" else self.ws.handler.score
        for ask in asks:
            self.clock.set(ask.at)
            answered = answer(self.policy.model, ask.request)
            self.story.records += answered
            self._fresh += answered

    def _day_ends(self, now: datetime) -> None:
        self.clock.set(now)
        self._land(now)
        state = self.ws.registrar.state(self.policy.model)
        if under_trial(state):
            self.ws.shadow.run_once()
        self._mature(now)
        if state.stage in (Stage.SHADOW, Stage.CANARY):
            self._roll(now)
        if self._monitored is None or now - self._monitored >= self.policy.drift.every:
            self._watch(now)
        self.story.shares.append((now, self.ws.registrar.state(self.policy.model)))

    def _mature(self, now: datetime) -> None:
        self._monitor.update(self.ws.landing, now, records=self._fresh)
        self._fresh = []

    def _roll(self, now: datetime) -> None:
        state = self.ws.registrar.state(self.policy.model)
        action, _ = advance(self.ws, self.policy, now, evidence=seen(self._monitor, state, now))
        self._note(now, action)

    def _watch(self, now: datetime) -> None:
        self._monitored = now
        state = self.ws.registrar.state(self.policy.model)
        if state.champion is None:
            return
        unsafe = self.ws.sources.unsafe(self.policy.features, now)
        window, response = self._monitor.run(state, now, unsafe=unsafe)
        self.story.windows.append(window)
        self.story.responses.append((now, response))
        if response.response is Response.RETRAIN and not under_trial(state):
            self.story.retrains += 1
            self.ws.registrar.request_retrain(self.policy, response.reason, iso(now))
            try:
                self._train(now, quiet)
            except NotEnoughData as error:
                self.story.responses.append((now, MonitorDecision(Response.ALERT, str(error))))

    def _train(self, now: datetime, progress: Progress) -> Trial:
        trial = train_candidate(self.ws, self.policy, now, progress)
        self.story.guarantee_violations += not trial.rows_kept
        self.story.trials.append((now, trial))
        action, _ = advance(self.ws, self.policy, now, verdict=trial.verdict)
        self._note(now, action)
        return trial

    def _note(self, now: datetime, action: Action) -> None:
        if action.move is not Move.STAY:
            self.story.moves.append((now, action))
