"""One workspace with everything in it, each part made when first used: the composition root."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from contracts.declarations import Declarations, load_declarations
from contracts.environments import resolved
from contracts.errors import InputInvalid, UnknownName
from contracts.policy import Policy, load_policies
from contracts.settings import Settings
from contracts.times import Clock, SetClock
from lifecycle.demo_state import demo_end

if TYPE_CHECKING:
    from drift.monitor import Monitor
    from features.feast_store import FeatureRepo
    from features.gold import GoldStore
    from features.landing import Landing
    from features.online_rows import OnlineFeatures
    from features.source_watch import SourceWatch
    from registry.artifacts import ArtifactStore
    from registry.keys import KeyRing
    from registry.promotion import Registrar
    from registry.sql_ledger import SqlLedger
    from serving.handler import DecisionHandler
    from serving.shadow import ShadowScorer


def _clock(settings: Settings) -> Clock:
    end = None if settings.clock else demo_end(settings)
    return SetClock(end) if end else settings.make_clock()


class Workspace:
    """The parts of one workspace, wired together.

    Args:
        settings: where things are; the environment's (SEATRIAL_*) when not given.
        clock: where "now" comes from; when not given the settings' own, or in a demo's workspace the end of its
            history: today's would find everything there stale.
        durable: False lets feature rows reach the disk when the system likes; a rehearsal can make them again.
    """

    def __init__(self, settings: Settings | None = None, clock: Clock | None = None, *, durable: bool = True) -> None:
        self.settings = settings or resolved(Settings())
        self._durable = durable
        self.clock = clock or _clock(self.settings)

    @cached_property
    def policies(self) -> dict[str, Policy]:
        """Every model's policy, by model."""
        folder = self.settings.policies
        if not folder.is_dir():
            raise InputInvalid(str(folder), "a folder of policy files", "no such folder", hint="set SEATRIAL_POLICIES")
        return load_policies(folder)

    def policy(self, model: str) -> Policy:
        """The policy of one model; `late-delivery` and `late_delivery` name the same.

        Raises:
            UnknownName: no policy for that model; names the nearest.
        """
        name = model.replace("-", "_")
        if name not in self.policies:
            raise UnknownName("model", model, self.policies)
        return self.policies[name]

    @cached_property
    def declarations(self) -> Declarations:
        """The feature declarations."""
        return load_declarations(self.settings.features)

    def features_hash(self, policy: Policy) -> str:
        """Hash of the feature service that a policy names.

        Raises:
            UnknownName: the policy names a feature service that is not declared.
        """
        if policy.features not in self.declarations.services:
            raise UnknownName("feature service", policy.features, self.declarations.services)
        return self.declarations.service_hash(policy.features)

    @cached_property
    def landing(self) -> Landing:
        """Landed events."""
        from features.landing import Landing

        return Landing(self.settings.lake)

    @cached_property
    def sources(self) -> SourceWatch:
        """How far the sources of the landed events can be trusted."""
        from features.source_watch import SourceWatch

        return SourceWatch(self.landing, self.declarations)

    @cached_property
    def gold(self) -> GoldStore:
        """Feature rows by view."""
        from features.gold import GoldStore

        return GoldStore(self.settings.lake / "gold", durable=self._durable)

    @cached_property
    def feast(self) -> FeatureRepo:
        """The Feast repository over the gold rows."""
        from features.feast_store import FeatureRepo

        repo = FeatureRepo(self.settings, self.declarations, gold=self.gold)
        with self.alone("feast"):
            repo.apply()
        return repo

    @cached_property
    def online(self) -> OnlineFeatures:
        """The online store: embedded, or the Redis that the settings name."""
        from features.online_stores import open_online

        return open_online(self.settings, self.declarations, durable=self._durable)

    @cached_property
    def ledger(self) -> SqlLedger:
        """The hash-chained ledger."""
        from registry.sql_ledger import SqlLedger

        self.settings.home.mkdir(parents=True, exist_ok=True)
        return SqlLedger(self.settings.ledger, anchors=self.settings.anchor_file)

    @cached_property
    def artifacts(self) -> ArtifactStore:
        """Sealed artifacts."""
        from registry.artifacts import ArtifactStore

        return ArtifactStore(self.settings.artifacts)

    @cached_property
    def registrar(self) -> Registrar:
        """The one writer of the ledger and its projections."""
        from registry.mlflow_store import MlflowProjection
        from registry.promotion import Registrar

        return Registrar(
            ledger=self.ledger,
            artifacts=self.artifacts,
            snapshots=self.settings.serving,
            mlflow=MlflowProjection(self.settings.tracking),
            clock=self.clock,
            actor=self.settings.actor,
            adopted_only=self.settings.access == "required",
        )

    @cached_property
    def keys(self) -> KeyRing:
        """The one writer of who may do what; keys live in real time, also beside a rehearsal."""
        from contracts.times import SystemClock
        from registry.keys import KeyRing

        settings = self.settings
        required = settings.access == "required"
        return KeyRing(self.ledger, settings.access_file, SystemClock(), settings.actor, required=required)

    @cached_property
    def handler(self) -> DecisionHandler:
        """The decision handler, the same that HTTP uses, on this workspace's clock."""
        from serving.wiring import handler_from

        return handler_from(self.settings, self.clock, declarations=self.declarations)

    @cached_property
    def shadow(self) -> ShadowScorer:
        """Scores decisions a second time, off the path."""
        from serving.wiring import shadow_from

        return shadow_from(self.settings, self.declarations)

    def monitor(self, model: str) -> Monitor:
        """The monitor of one model."""
        from drift.monitor import Monitor

        return Monitor(self.settings, self.policy(model), self.declarations)

    @cached_property
    def revision(self) -> str:
        """Hash of the code that runs."""
        from serving.revision import code_revision

        return code_revision()

    @contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """Hold off other processes of this workspace from doing the same first-time work at the same moment."""
        self.settings.home.mkdir(parents=True, exist_ok=True)
        with (self.settings.home / f".{what}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def closing(self) -> Iterator[Workspace]:
        """The workspace, with its open stores closed at the end."""
        try:
            yield self
        finally:
            for part in ("handler", "shadow", "online", "ledger"):
                made = self.__dict__.get(part)
                close = getattr(made, "close", None)
                if close:
                    close()
