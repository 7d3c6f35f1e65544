"""Models in service: read a snapshot, verify and load its versions, warm them, then swap; a bad one changes nothing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from contracts.decisions import Rung, ViewRead
from contracts.declarations import Declarations
from contracts.errors import ArtifactRefused, ConfigInvalid, DependencyDown, SeatrialError, UnknownName
from contracts.policy import Policy
from models.load import load_model
from registry.artifacts import ArtifactStore, verify
from registry.snapshot import Deployed, ServingSnapshot, read_snapshot
from serving.answers import Model, try_model
from serving.assemble import Plan, columns_for, plan_for

RETRY_S = 30.0
_WARM_AT = datetime(2024, 1, 8, tzinfo=UTC)


@dataclass(frozen=True)
class Loaded:
    """One verified, loaded and warmed version."""

    version: str
    manifest_sha256: str
    model: Model


@dataclass(frozen=True)
class InService:
    """One model as it is served now; replaced whole, so that a request sees one state from beginning to end.

    `refused`: rungs whose version could not be loaded, with the reason.
    """

    snapshot: ServingSnapshot
    policy: Policy
    plan: Plan
    features_hash: str
    versions: Mapping[Rung, Loaded] = field(default_factory=dict)
    refused: Mapping[Rung, str] = field(default_factory=dict)

    def loaded(self, rung: Rung) -> Loaded | None:
        """The version that answers on a rung, or None when there is none."""
        return self.versions.get(rung)

    def too_old(self, now: datetime) -> str:
        """In words, why the snapshot may not be served from any more by its policy; empty while it may."""
        limit, age = self.policy.serve.max_snapshot_age, now - self.snapshot.written_at
        if limit is None or age <= limit:
            return ""
        return f"its snapshot was confirmed {age} ago, the policy allows {limit}; see that `seatrial reconcile` runs"


class ModelsInService:
    """All models of a workspace, by the snapshot files in one folder.

    Args:
        snapshots: folder of serving snapshots, one `<model>.json` each.
        artifacts: where sealed artifacts are.
        declarations: views and services.
        on_problem: told (model, words) when a snapshot could not be taken into service.
    """

    def __init__(
        self,
        snapshots: Path,
        artifacts: ArtifactStore,
        declarations: Declarations,
        on_problem: Callable[[str, str], None] | None = None,
    ) -> None:
        self.snapshots, self.artifacts, self.declarations = Path(snapshots), artifacts, declarations
        self.problems: dict[str, str] = {}
        self._on_problem = on_problem
        self._now: dict[str, InService] = {}
        self._seen: dict[str, tuple[tuple[int, int, int], float]] = {}
        self._loaded: dict[tuple[str, str, str], Loaded] = {}
        self._lock = threading.Lock()

    def get(self, model: str) -> InService:
        """The model as it is served now.

        Raises:
            UnknownName: there is no snapshot of that model; names the nearest.
            DependencyDown: there is one, but it could not be taken into service.
        """
        found = self._now.get(model)
        if found is None:
            if model in self.problems:
                raise DependencyDown(f"model {model}", self.problems[model])
            raise UnknownName("model", model, self._now)
        return found

    def names(self) -> tuple[str, ...]:
        """Models in service."""
        return tuple(sorted(self._now))

    def refresh(self) -> tuple[str, ...]:
        """Take changed snapshots into service; returns the models that were swapped. Safe to call at any time."""
        with self._lock:
            try:
                with os.scandir(self.snapshots) as entries:
                    found = [entry for entry in entries if entry.name.endswith(".json")]
            except FileNotFoundError:
                return ()
            paths = [self.snapshots / entry.name for entry in found if self._changed(entry)]
            return tuple(path.stem for path in sorted(paths) if self._take(path))

    def _changed(self, entry: os.DirEntry[str]) -> bool:
        """True when the file is new, or is the same bad one after a while (its artifact may have come meanwhile)."""
        name = entry.name.removesuffix(".json")
        try:
            state = entry.stat()
        except FileNotFoundError:
            return False
        mark = (state.st_mtime_ns, state.st_ino, state.st_size)
        seen, at = self._seen.get(name, (None, 0.0))
        waited = name in self.problems and time.monotonic() - at >= RETRY_S
        if seen == mark and not waited:
            return False
        self._seen[name] = (mark, time.monotonic())
        return True

    def _take(self, path: Path) -> bool:
        name = path.stem
        try:
            made = self._build(name, read_snapshot(path))
        except (SeatrialError, OSError, ValueError, KeyError) as error:
            self._tell(name, str(error) or type(error).__name__)
            return False
        self._now[name] = made
        self.problems.pop(name, None)
        for words in made.refused.values():
            self._tell(name, words)
        keep = {(name, one.version, one.manifest_sha256) for one in made.versions.values()}
        self._loaded = {key: one for key, one in self._loaded.items() if key[0] != name or key in keep}
        return True

    def _tell(self, name: str, words: str) -> None:
        self.problems[name] = words
        if self._on_problem is not None:
            self._on_problem(name, words)

    def _build(self, name: str, snapshot: ServingSnapshot) -> InService:
        if snapshot.model != name:
            raise ConfigInvalid(f"{name}.json", "model", repr(name), repr(snapshot.model))
        policy = snapshot.policy
        plan = plan_for(self.declarations, policy.features)
        wanted = {
            Rung.CHAMPION: snapshot.champion,
            Rung.CANARY: snapshot.challenger,
            Rung.PREVIOUS_CHAMPION: snapshot.previous_champion,
        }
        versions: dict[Rung, Loaded] = {}
        refused: dict[Rung, str] = {}
        for rung, one in wanted.items():
            if one is None:
                continue
            try:
                versions[rung] = self._load(policy, plan, one)
            except (SeatrialError, OSError, ValueError, KeyError) as error:
                # While something sound is in service it stays; only a cold start goes to sea with a rung missing,
                # and the previous champion, which only stands by, never holds up its successors.
                if name in self._now and rung is not Rung.PREVIOUS_CHAMPION:
                    raise
                refused[rung] = str(error) or type(error).__name__
        return InService(
            snapshot=snapshot,
            policy=policy,
            plan=plan,
            features_hash=self.declarations.service_hash(policy.features),
            versions=versions,
            refused=refused,
        )

    def _load(self, policy: Policy, plan: Plan, wanted: Deployed) -> Loaded:
        key = (policy.model, wanted.version, wanted.manifest_sha256)
        found = self._loaded.get(key)
        if found is None:
            folder = self.artifacts.path(policy.model, wanted.version)
            manifest = verify(folder, wanted.manifest_sha256)
            trained_on = manifest.get("meta", {}).get("features_hash")
            if trained_on not in (None, "", self.declarations.service_hash(policy.features)):
                raise ArtifactRefused(f"{policy.model} {wanted.version}", "trained on other feature declarations")
            model = load_model(folder)
            if model.kind != policy.kind:
                raise ArtifactRefused(f"{policy.model} {wanted.version}", f"a {model.kind} model, wanted {policy.kind}")
            warm(model, policy, plan, self.declarations, wanted.version)
            found = self._loaded[key] = Loaded(wanted.version, wanted.manifest_sha256, model)
        return found


def warm(model: Model, policy: Policy, plan: Plan, declarations: Declarations, version: str) -> None:
    """One answer to a made-up request, so that the first real one is fast and a model that cannot answer stays out.

    Raises:
        ArtifactRefused: the model gave no finite answer.
    """
    horizon = policy.horizon or 1
    times = {"promised_at": (_WARM_AT + timedelta(days=1)).isoformat(), "scheduled_at": _WARM_AT.isoformat()}
    item: dict[str, Any] = times | dict.fromkeys(("sku", "location", "carrier", "origin", "destination"), "warm")
    views: list[ViewRead] = []
    for name, _, columns in plan.views:
        read = ViewRead(view=name, values=dict.fromkeys(columns, 1.0), event_time=_WARM_AT, age_s=0.0, status="present")
        views += [read] * (horizon if name in plan.optional else 1)
    made = columns_for(policy.kind, item, views, plan.service, declarations, _WARM_AT, horizon, plan=plan)
    attempt = try_model(Rung.CHAMPION, version, model, made, explain=policy.kind == "risk")
    if attempt.failure:
        raise ArtifactRefused(f"{policy.model} {version}", f"it cannot answer: {attempt.failure}")
