"""One look at one model: measure the newest window, judge it, keep the verdict, say what the policy makes of it.

From values in memory; `drift.monitor` brings them from the log, the landing and the artifacts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from contracts.decisions import DecisionRecord
from contracts.declarations import Declarations
from contracts.monitoring import MonitorDecision, WindowVerdict
from contracts.policy import Policy
from contracts.times import utc
from drift.evidently_report import measure, render
from drift.judge import WindowStats, judge
from drift.profile import PREDICTION, Profile
from drift.triggers import respond
from drift.verdict_log import VerdictLog
from drift.window import Measure, judged_names, measure_window


@dataclass(frozen=True)
class Look:
    """What one run found: figures, verdict, the policy's response, and the window's features for a report."""

    stats: WindowStats
    verdict: WindowVerdict
    decision: MonitorDecision
    frame: pd.DataFrame


class Watcher:
    """Watches one model.

    Args:
        policy, declarations: of the model.
        folder: where verdicts are kept (`home/monitor`).
        distance: PSI of columns; by Evidently unless `drift.psi.measure` is given, which gives the same figures.
    """

    def __init__(self, policy: Policy, declarations: Declarations, folder: Path, distance: Measure = measure) -> None:
        self.policy, self.declarations = policy, declarations
        self._distance = distance
        self.log = VerdictLog(folder, policy.model)

    def due(self, version: str, now: datetime) -> bool:
        """True when the policy's `drift.every` has passed since the last window of the version."""
        past = self.log.verdicts(version)
        return not past or now - past[-1].end >= self.policy.drift.every

    def run(
        self,
        *,
        version: str,
        champion_since: datetime,
        records: Sequence[DecisionRecord],
        matured: pd.DataFrame,
        profile: Profile | None,
        now: datetime,
        last_retrains: Sequence[datetime] = (),
        events: Sequence[str] = (),
        unsafe: Sequence[str] = (),
        overridden: Collection[datetime] = (),
    ) -> Look:
        """Judge the window that ends now.

        Args:
            version: the champion, in office since `champion_since`: the window does not reach back before that.
            records: decisions of the model from memory or the log, at least the window's.
            matured: `MaturityTracker.frame()`.
            profile: `read_profile` of the version's artifact, None when there is none.
            now: the window's end.
            last_retrains, events, unsafe, overridden: see `respond`.

        Returns:
            the look; its verdict is on disk. The same run again gives the same and writes nothing.
        """
        now, since = utc(now, "now"), utc(champion_since, "champion_since")
        start = min(max(now - self.policy.drift.window, since), now)
        stats, frame = measure_window(
            records, matured, profile, self.policy, self.declarations, version, start, now, self._distance
        )
        verdict = judge(stats, self.policy)
        self.log.append(verdict)
        windows = [past for past in self.log.verdicts(version) if past.end > since]
        decision = respond(windows, last_retrains, since, self.policy, now, events, unsafe, overridden)
        return Look(stats, verdict, decision, frame)

    def report(self, look: Look, profile: Profile, path: Path) -> tuple[str, ...]:
        """Evidently's HTML on a look; returns the columns that are in it."""
        names = [*judged_names(profile, self.policy), PREDICTION]
        return render(profile.sample, look.frame, names, path, self.policy.drift.feature_psi)
