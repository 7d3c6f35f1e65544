"""The parts of serving, put together from a workspace's settings."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from contracts.decisions import DecisionRecord
from contracts.declarations import Declarations, load_declarations
from contracts.policy import Policy, load_policies
from contracts.settings import Settings
from contracts.times import Clock
from features.landing import Landing
from features.online_rows import OnlineFeatures
from features.online_stores import open_online
from features.source_watch import SourceWatch
from registry.artifacts import ArtifactStore
from serving.decision_log import DecisionLog
from serving.handler import DecisionHandler
from serving.metrics import DecisionMetrics
from serving.models_in_service import ModelsInService
from serving.outcomes import OutcomeLog
from serving.replay import ReplayResult, replay
from serving.revision import code_revision
from serving.shadow import ShadowScorer
from serving.source_gauges import Looked, SourceGauges


def handler_from(
    settings: Settings,
    clock: Clock | None = None,
    *,
    declarations: Declarations | None = None,
    auto_refresh: bool = True,
) -> DecisionHandler:
    """The decision handler of a workspace, with every snapshot that is there taken into service.

    Args:
        settings: where things are.
        clock: where "now" comes from; the settings' own when not given.
        declarations: views and services; read from the settings' feature repository when not given.
        auto_refresh: see DecisionHandler.
    """
    declared = declarations or load_declarations(settings.features)
    metrics, online, told = DecisionMetrics(), open_online(settings, declared), clock or settings.make_clock()
    models = ModelsInService(settings.serving, ArtifactStore(settings.artifacts), declared, metrics.problem)
    metrics.watch(SourceGauges(_look_at(settings, declared, online), told))
    handler = DecisionHandler(
        models=models,
        online=online,
        declarations=declared,
        log=DecisionLog(settings.decisions),
        outcomes=OutcomeLog(settings.decisions),
        clock=told,
        code_revision=code_revision(),
        metrics=metrics,
        auto_refresh=auto_refresh,
    )
    handler.refresh()
    return handler


def _look_at(settings: Settings, declared: Declarations, online: OnlineFeatures) -> Callable[[datetime], Looked]:
    """Looks at the sources and views of a workspace; a view is as old here as it is online."""
    sources = SourceWatch(Landing(settings.lake), declared)
    return lambda now: (sources.health(now), sources.views(now, None, online))


def replay_in(settings: Settings, record: DecisionRecord) -> ReplayResult:
    """A decision made again from its record, against the artifacts, policies and declarations of a workspace.

    Raises:
        ConfigInvalid, InputInvalid: the workspace's declarations or policies cannot be read.
    """
    declared, policies = _declared(settings.features, _mark(settings.features)), settings.policies
    policy = _policies(policies, _mark(policies)).get(record.model)
    hash_now = policy.hash if policy is not None else "none"
    return replay(record, ArtifactStore(settings.artifacts), declared, hash_now, code_revision())


def _mark(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, times and sizes of a folder's YAML files: changes when one of them does."""
    states = [(path.name, path.stat()) for path in sorted(folder.glob("*.yaml"))]
    return tuple((name, state.st_mtime_ns, state.st_size) for name, state in states)


@lru_cache(maxsize=4)
def _declared(folder: Path, mark: object) -> Declarations:
    return load_declarations(folder)


@lru_cache(maxsize=4)
def _policies(folder: Path, mark: object) -> dict[str, Policy]:
    return load_policies(folder)


def shadow_from(settings: Settings, declarations: Declarations | None = None) -> ShadowScorer:
    """The shadow scorer of a workspace; it loads models of its own, so that it shares nothing with a server."""
    declared = declarations or load_declarations(settings.features)
    models = ModelsInService(settings.serving, ArtifactStore(settings.artifacts), declared)
    return ShadowScorer(settings.decisions, models, declared)
