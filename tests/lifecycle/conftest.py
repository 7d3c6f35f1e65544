"""A small real voyage: 8 generated series, one policy, a first training, four weeks live, a retraining by age."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from contracts.mapping import load_mapping
from contracts.policy import Policy
from contracts.settings import Settings
from contracts.times import SetClock
from features.importer import Staged, stage
from lifecycle.demo_data import series_asks
from lifecycle.loop import Loop, Story
from lifecycle.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "<script>alert('sku')</script>"
FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
LEARN_UNTIL = FIRST_DAY + timedelta(days=112)
LIVE_UNTIL = LEARN_UNTIL + timedelta(days=24)
TICK = timedelta(days=1)

MAPPING = """\
source_system: tiny
batch: 1d
inputs:
  sales: {}
events:
  - kind: demand
    columns:
      event_id: {join: [sku, location, day]}
      event_time: {from: day}
      known_at: {from: day, plus: 1d}
      sku: {from: sku}
      location: {from: location}
      period: {value: day}
      quantity: {from: units}
"""
FEATURES = """\
project: tiny
views:
  demand_history: {kind: demand_history, keys: [sku, location], tick: 1d, ttl: 3d, lags: 7, windows: [7, 28]}
services:
  demand_v1:
    views: [demand_history]
    facts:
      - {kind: calendar, country: US}
"""
POLICY = """\
model: demand
kind: forecast
owner: {team: "planning <b>team</b>", notify: ["mailto:owner@example.org"]}
business: {hypothesis: "less waste <img src=x onerror=alert(1)>", metric: write-offs}
features: demand_v1
incumbent: seasonal_naive
horizon: 7
training: {history: 70d, origins: 3, every: 14d, row_cap: 20000, rounds: 30, quantiles: [0.1, 0.5, 0.9]}
gate:
  metric: rmsse
  beat: {champion: 0.0, incumbent: 0.02}
  confidence: 0.95
  min_rows: 100
  calibration: {bias_max: 0.3}
rollout:
  shadow: {min_decisions: 20, min_days: 3}
  canary: {key: sku_location, steps: [50], bake: 2d}
  guardrails: {p99_ms: 10000, prediction_shift_psi: 5.0, min_decisions: 5, window: 4d}
  verdict: {metric: rmsse, min_pairs: 50, deadline: 42d}
serve: {max_feature_age: 36h, ladder: [champion, previous_champion, incumbent, refuse]}
drift: {window: 7d, every: 7d, min_rows: 30, performance: 1.5}
retrain:
  when: {violations: 2, of_last: 3, max_age: 14d}
  cooldown: 7d
  budget: {runs: 2, per: 60d}
"""


def sales(days: int = 140) -> pd.DataFrame:
    """Weekly rhythm with Poisson noise: a rule that repeats last week's noise can be beaten."""
    rng = np.random.default_rng(11)
    rhythm = np.array([0.7, 0.8, 0.9, 1.0, 1.3, 1.6, 0.7])
    dates = [FIRST_DAY + timedelta(days=day) for day in range(days)]
    parts = []
    for number in range(8):
        sku = HOSTILE if number == 0 else f"sku-{number}"
        level = 60.0 if number == 0 else 10.0 + 4 * number
        units = rng.poisson(level * rhythm[[date.weekday() for date in dates]])
        day = [f"{date:%Y-%m-%d}" for date in dates]
        parts.append(pd.DataFrame({"sku": sku, "location": f"shop-{number % 2}", "day": day, "units": units}))
    return pd.concat(parts, ignore_index=True)


@dataclass(frozen=True)
class Yard:
    """A folder with a source file, its mapping, a policy, declarations and the home of a workspace."""

    root: Path

    @property
    def mapping(self) -> Path:
        return self.root / "sales.yaml"

    @property
    def file(self) -> Path:
        return self.root / "sales.csv"

    @property
    def settings(self) -> Settings:
        return Settings(
            home=self.root / "home", policies=self.root / "policies", features=self.root / "features", actor="tests"
        )

    def environment(self) -> dict[str, str]:
        """What the command line needs to work on this yard."""
        known = self.settings
        return {
            "SEATRIAL_HOME": str(known.home),
            "SEATRIAL_POLICIES": str(known.policies),
            "SEATRIAL_FEATURES": str(known.features),
            "SEATRIAL_CLOCK": f"{LIVE_UNTIL:%Y-%m-%dT%H:%M:%SZ}",
        }

    def staged(self) -> Staged:
        return stage(load_mapping(self.mapping), self.file)


def lay_out(root: Path) -> Yard:
    yard = Yard(root)
    for folder in ("policies", "features"):
        (root / folder).mkdir()
    yard.mapping.write_text(MAPPING)
    (root / "policies" / "demand.yaml").write_text(POLICY)
    (root / "features" / "features.yaml").write_text(FEATURES)
    sales().to_csv(yard.file, index=False)
    return yard


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    """A yard in which nothing has happened yet."""
    return lay_out(tmp_path)


@dataclass(frozen=True)
class Sailed:
    """A yard after its voyage."""

    yard: Yard
    policy: Policy
    story: Story
    staged: Staged


@pytest.fixture(scope="session")
def sailed(tmp_path_factory: pytest.TempPathFactory) -> Sailed:
    """The small voyage, run once; tests read it, and leave it as it is."""
    yard = lay_out(tmp_path_factory.mktemp("sailed"))
    clock = SetClock(LEARN_UNTIL)
    ws = Workspace(yard.settings, clock)
    staged = yard.staged()
    with ws.closing():
        loop = Loop(ws, ws.policy("demand"), staged, clock, tick=TICK)
        loop.learn(LEARN_UNTIL)
        loop.run(LIVE_UNTIL, series_asks(staged.events["demand"], 1))
    return Sailed(yard, ws.policy("demand"), loop.story, staged)


@pytest.fixture
def workspace(sailed: Sailed) -> Workspace:
    """The sailed workspace, opened again at the end of the voyage."""
    return Workspace(sailed.yard.settings, SetClock(LIVE_UNTIL))


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Finds a file of the real data, or skips with the folder's name."""

    def find(name: str) -> Path:
        path = Path(os.environ.get("SEATRIAL_DATA", ROOT.parent / "shared" / "data")) / name
        if not path.exists():
            pytest.skip(f"no {path}: set SEATRIAL_DATA to the folder with the real data")
        return path

    return find
