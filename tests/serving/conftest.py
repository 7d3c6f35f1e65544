"""A small real workspace: two trained versions of each model, sealed, placed, with snapshots and an online store."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.declarations import Declarations, load_declarations, view_columns
from contracts.policy import Policy, Training, load_policies
from contracts.rollout import Stage
from contracts.settings import Settings
from contracts.times import SetClock
from features.facts import fact_values
from features.online import OnlineStore
from models.design import FrameColumns, design_spec
from models.forecaster import fit_forecast
from models.risk import fit_risk
from registry.artifacts import ArtifactStore, seal
from registry.snapshot import Deployed, ServingSnapshot, snapshot_path, write_snapshot
from serving.assemble import target_dates
from serving.handler import DecisionHandler
from serving.wiring import handler_from

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 3, 4, 6, 0, tzinfo=UTC)
TICK = datetime(2026, 3, 4, tzinfo=UTC)


@pytest.fixture(scope="session")
def declarations() -> Declarations:
    return load_declarations(ROOT / "features" / "repo")


@pytest.fixture(scope="session")
def policies() -> dict[str, Policy]:
    return load_policies(ROOT / "policies")


def view_values(rng: np.random.Generator, names: tuple[str, ...], rows: int) -> dict[str, np.ndarray]:
    level = rng.gamma(2.0, 5.0, rows)
    made: dict[str, np.ndarray] = {}
    for name in names:
        if name.startswith("late_rate"):
            made[name] = rng.beta(2, 6, rows)
        elif name.startswith("n_"):
            made[name] = rng.integers(1, 60, rows).astype(float)
        elif name.startswith(("lag", "mean", "season")):
            made[name] = rng.poisson(level).astype(float)
        else:
            made[name] = level * rng.uniform(0.2, 1.2, rows)
    return made


def training_rows(policy: Policy, declarations: Declarations, seed: int, rows: int = 700) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    service = declarations.services[policy.features]
    frame: dict[str, Any] = {"as_of": np.full(rows, np.datetime64("2026-01-05T06:00", "us"))}
    if policy.kind == "forecast":
        frame["step"] = rng.integers(1, 15, rows)
        frame["target_date"] = np.array(target_dates("2026-01-05", 14))[frame["step"] - 1]
    else:
        for name in ("carrier", "origin", "destination"):
            frame[name] = rng.choice(["A", "B", "C"], rows)
        frame["scheduled_at"] = frame["as_of"] + rng.integers(1, 40, rows).astype("timedelta64[h]")
        frame["promised_at"] = frame["scheduled_at"] + rng.integers(1, 9, rows).astype("timedelta64[h]")
        frame["distance_km"] = rng.uniform(100, 4000, rows)
    for view in service.views:
        for name, values in view_values(rng, view_columns(declarations.views[view]), rows).items():
            frame[f"{view}__{name}"] = values
    frame.update(fact_values(service.facts, frame))
    table = pd.DataFrame(frame)
    if policy.kind == "forecast":
        return table.assign(label=rng.poisson(table["demand_history__lag_7"]).astype(float))
    return table.assign(label=(rng.random(rows) < 0.1 + 0.5 * table["lane_rates__late_rate_30"]).astype(float))


@dataclass(frozen=True)
class Trained:
    folders: dict[tuple[str, str], Path]
    manifests: dict[tuple[str, str], str]


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory, declarations: Declarations, policies: dict[str, Policy]
) -> Trained:
    folders, manifests = {}, {}
    for model, policy in policies.items():
        for number in (1, 2, 3):
            rows = training_rows(policy, declarations, seed=number)
            spec = design_spec(policy.kind, declarations, policy.features, rows)
            label, recipe = rows["label"].to_numpy(), Training(rounds=12, quantiles=(0.1, 0.5, 0.9))
            folder = tmp_path_factory.mktemp(f"{model}-v{number}")
            if policy.kind == "forecast":
                fit_forecast(spec, FrameColumns(rows), label, recipe, policy.horizon or 1).save(folder)
            else:
                fit_risk(spec, FrameColumns(rows), label, recipe).save(folder)
            folders[model, f"v{number}"] = folder
            manifests[model, f"v{number}"] = seal(folder, {"model": model})
    return Trained(folders, manifests)


@dataclass
class Port:
    """A workspace with its clock and what is needed to change what is in service."""

    settings: Settings
    clock: SetClock
    declarations: Declarations
    policies: dict[str, Policy]
    trained: Trained
    artifacts: ArtifactStore
    revision: int = 1

    def deployed(self, model: str, version: str | None) -> Deployed | None:
        if version is None:
            return None
        sha = self.trained.manifests[model, version]
        return Deployed(version=version, manifest_sha256=sha, folder=self.artifacts.folder(model, version))

    def deploy(self, model: str, champion: str | None = "v1", **more: Any) -> ServingSnapshot:
        """Write the model's snapshot: champion, and by name previous, challenger, share, stage, policy."""
        self.revision += 1
        policy = more.get("policy") or self.policies[model]
        snapshot = ServingSnapshot(
            model=model,
            kind=policy.kind,
            revision=self.revision,
            policy=policy,
            policy_hash=policy.hash,
            features=policy.features,
            champion=self.deployed(model, champion),
            previous_champion=self.deployed(model, more.get("previous")),
            challenger=self.deployed(model, more.get("challenger")),
            stage=more.get("stage", Stage.CANARY if more.get("share") else Stage.NONE),
            share=more.get("share", 0.0),
            salt=f"{model}-salt",
            written_at=NOW,
        )
        path = snapshot_path(self.settings.serving, model)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_snapshot(path, snapshot)
        return snapshot

    def put(self, view: str, keys: dict[str, str], event_time: datetime = TICK, seed: int = 1) -> None:
        """Write one row of a view into the online store."""
        names = view_columns(self.declarations.views[view])
        values = view_values(np.random.default_rng(seed), names, 1)
        frame = pd.DataFrame({**{key: [value] for key, value in keys.items()}, **values})
        frame["event_time"] = frame["known_at"] = pd.Timestamp(event_time)
        store = OnlineStore(self.settings.online)
        store.write(view, tuple(keys), frame)
        store.close()

    def handler(self) -> DecisionHandler:
        return handler_from(self.settings, self.clock, declarations=self.declarations)

    def break_artifact(self, model: str, version: str) -> None:
        """Change one byte of one file of a placed artifact."""
        path = self.artifacts.path(model, version) / "spec.json"
        path.chmod(0o644)
        path.write_bytes(path.read_bytes().replace(b"kind", b"kinb", 1))


@pytest.fixture
def port(tmp_path: Path, declarations: Declarations, policies: dict[str, Policy], trained: Trained) -> Port:
    settings = Settings(home=tmp_path / "home", policies=ROOT / "policies", features=ROOT / "features" / "repo")
    artifacts = ArtifactStore(settings.artifacts)
    for (model, version), folder in trained.folders.items():
        artifacts.place(model, version, folder)
    made = Port(settings, SetClock(NOW), declarations, policies, trained, artifacts)
    for model in policies:
        made.deploy(model)
    series = {"sku": "milk", "location": "north"}
    made.put("demand_history", series)
    made.put("price_history", series)
    made.put("promotion_plan", {**series, "target_date": "2026-03-06"}, TICK - timedelta(days=5))
    lane = {"carrier": "A", "origin": "B", "destination": "C"}
    for view in ("carrier_rates", "lane_rates", "carrier_lane_rates", "origin_rates", "origin_weather"):
        made.put(view, {key: lane[key] for key in declarations.views[view].keys})
    return made


@pytest.fixture
def handler(port: Port) -> Iterator[DecisionHandler]:
    made = port.handler()
    yield made
    made.close()


@pytest.fixture
def shipment() -> Callable[..., dict[str, Any]]:
    def make(number: int = 1, **more: Any) -> dict[str, Any]:
        return {
            "shipment_id": f"S{number}",
            "carrier": "A",
            "origin": "B",
            "destination": "C",
            "scheduled_at": "2026-03-04T08:00:00Z",
            "promised_at": "2026-03-04T12:00:00+00:00",
            "distance_km": 812.5,
            **more,
        }

    return make


@pytest.fixture
def broken_model() -> Callable[[DecisionHandler, str, Any], None]:
    """Takes a loaded version's boosters away, so that it fails whenever it is asked."""

    def break_it(handler: DecisionHandler, model: str, rung: Any) -> None:
        service = handler.models.get(model)
        loaded = service.versions[rung]
        part = "mean" if service.policy.kind == "forecast" else "trees"
        broken = replace(loaded, model=replace(loaded.model, **{part: None}))
        handler.models._now[model] = replace(service, versions={**service.versions, rung: broken})

    return break_it


@pytest.fixture
def forget() -> Callable[[Path], None]:
    return lambda folder: shutil.rmtree(folder, ignore_errors=True)
