"""The monitor of one model in a workspace: reads what is new, matures it, judges windows, gives rollout evidence."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from contracts.decisions import DecisionRecord, ShadowScore
from contracts.declarations import Declarations
from contracts.errors import InputInvalid
from contracts.monitoring import MonitorDecision, WindowVerdict
from contracts.policy import Policy
from contracts.rollout import OnlineEvidence, RolloutState
from contracts.settings import Settings
from contracts.times import utc
from drift.evidently_report import measure
from drift.landed_labels import Landed, LandedLabels
from drift.log_source import LogSource
from drift.maturity import Maturation, MaturityTracker
from drift.online_evidence import online_evidence
from drift.profile import Profile, read_profile
from drift.watcher import Look, Watcher
from drift.window import Measure
from registry.artifacts import ArtifactStore


class Monitor:
    """Watches one model of a workspace; call `update`, then `run` or `evidence`.

    Args:
        settings: where logs, artifacts and verdicts are (`home/monitor/<model>.jsonl`).
        policy, declarations: of the model.
        distance: see `Watcher`.
    """

    def __init__(
        self, settings: Settings, policy: Policy, declarations: Declarations, distance: Measure = measure
    ) -> None:
        folder = settings.home / "monitor"
        self.policy = policy
        self.tracker = MaturityTracker(policy, declarations)
        self.watcher = Watcher(policy, declarations, folder, distance)
        self.records: list[DecisionRecord] = []
        self.shadow: list[ShadowScore] = []
        self._source = LogSource(settings.decisions, policy.model)
        self._labels = LandedLabels(policy.kind)
        self._artifacts = ArtifactStore(settings.artifacts)
        self._profiles: dict[str, Profile | None] = {}
        self._looks: dict[tuple[str, datetime], Look] = {}

    def update(
        self,
        landing: Landed,
        now: datetime,
        records: Sequence[DecisionRecord] | None = None,
        shadow: Sequence[ShadowScore] | None = None,
    ) -> Maturation:
        """Take in what came since the last update.

        Args:
            landing: where outcomes and demand land.
            now: what is known later waits.
            records, shadow: new ones from memory instead of the log; of a model always from the same source.
        """
        fresh = self._source.records() if records is None else [r for r in records if r.model == self.policy.model]
        scores = self._source.shadow() if shadow is None else [s for s in shadow if s.model == self.policy.model]
        self.records += fresh
        self.shadow += scores
        return self.tracker.update(fresh, self._labels.new(landing), now, scores)

    def run(
        self, state: RolloutState, now: datetime, events: Sequence[str] = (), unsafe: Sequence[str] = ()
    ) -> tuple[WindowVerdict, MonitorDecision]:
        """Judge the champion's window that ends now; see `Watcher.run`.

        Args:
            state: the rollout's state; needs a champion.
            now: the window's end.
            events: names of business events since the later of the champion's start and the last retraining.
            unsafe: why sources that the features need are not safe for automation; they veto a retraining.

        Raises:
            InputInvalid: there is no champion to watch.
        """
        look = self.look(state, now, events, unsafe)
        return look.verdict, look.decision

    def look(self, state: RolloutState, now: datetime, events: Sequence[str] = (), unsafe: Sequence[str] = ()) -> Look:
        """As `run`, with the figures behind the verdict."""
        if state.champion is None or state.champion_since is None:
            raise InputInvalid(self.policy.model, "a champion to watch", "none", hint="train one first")
        look = self.watcher.run(
            version=state.champion,
            champion_since=state.champion_since,
            records=self.records,
            matured=self.tracker.frame(),
            profile=self.profile(state.champion),
            now=now,
            last_retrains=state.retrains,
            events=events,
            unsafe=unsafe,
            overridden=state.overridden,
        )
        self._looks = {(state.champion, utc(now)): look}
        return look

    def evidence(self, state: RolloutState, now: datetime) -> OnlineEvidence | None:
        """What was seen of the challenger, None without one; see `online_evidence`."""
        if state.challenger is None or state.champion is None:
            return None
        pairs = self.tracker.pairs(state.challenger, state.champion, since=state.trial_since)
        return online_evidence(self.records, self.shadow, pairs, state, self.policy, now)

    def report(self, state: RolloutState, now: datetime, path: Path) -> Path | None:
        """Evidently's HTML on the window that ends now; None when no column could be compared.

        Raises:
            InputInvalid: there is no champion to watch.
        """
        look = self._looks.get((state.champion or "", utc(now))) or self.look(state, now)
        profile = self.profile(look.verdict.version)
        if profile is None or not self.watcher.report(look, profile, path):
            return None
        return path

    def profile(self, version: str) -> Profile | None:
        """The version's reference; None when its artifact has none: then the judge says not enough data."""
        if version not in self._profiles:
            try:
                self._profiles[version] = read_profile(self._artifacts.path(self.policy.model, version))
            except InputInvalid:
                self._profiles[version] = None
        return self._profiles[version]
