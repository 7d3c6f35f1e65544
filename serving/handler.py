"""The decision handler: from a request to answers on record. Knows no transport: HTTP, demo and tests call it alike."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from time import perf_counter
from typing import Any

from contracts.canonical import content_hash
from contracts.decisions import Answer, DecisionRecord, Route, Rung, ViewRead
from contracts.declarations import Declarations
from contracts.errors import DependencyDown, UnknownName
from contracts.policy import Kind
from contracts.times import Clock
from serving.answers import levels_of, try_model, try_rule
from serving.assemble import Columns, OnlineReader, columns_for, history_failure, read_views
from serving.decision_log import DecisionLog, decision_id
from serving.ladder import Attempt, climb, feature_concerns, rungs
from serving.metrics import DecisionMetrics
from serving.models_in_service import InService, ModelsInService
from serving.outcomes import OutcomeLog, outcome_event
from serving.requests import ForecastRequest, OutcomeRequest, RequestInvalid, ScoreRequest, as_request
from serving.routing import route
from serving.seals import seals

NOT_TEXT = frozenset({"promised_at", "scheduled_at"})


class DecisionHandler:
    """Answers requests, one record each; safe to call from several threads.

    Args:
        models: what is in service.
        online: the online feature store.
        declarations: views and services.
        log: where decisions are kept.
        outcomes: where outcomes are kept.
        clock: where "now" comes from.
        code_revision: of the running code, for the record.
        metrics: counters; its own when not given.
        auto_refresh: look for changed snapshots before each request; a server does that in the background instead.
    """

    def __init__(
        self,
        *,
        models: ModelsInService,
        online: OnlineReader,
        declarations: Declarations,
        log: DecisionLog,
        outcomes: OutcomeLog,
        clock: Clock,
        code_revision: str,
        metrics: DecisionMetrics | None = None,
        auto_refresh: bool = True,
    ) -> None:
        self.models, self.log, self.outcomes, self.clock = models, log, outcomes, clock
        self.metrics = metrics or DecisionMetrics()
        self.auto_refresh = auto_refresh
        self._online, self._declarations, self._revision = online, declarations, code_revision
        self._lock = threading.Lock()

    def forecast(self, model: str, request: ForecastRequest | Mapping[str, Any]) -> list[DecisionRecord]:
        """Demand forecasts, one decision an item, in order; a mapping is read as a ForecastRequest.

        Raises:
            UnknownName: no such forecast model. RequestInvalid: more items or a longer horizon than the policy allows.
            RequestConflict: the request id came with another body. DependencyDown: not in service, or the log is.
        """
        request = as_request(ForecastRequest, request)
        service = self._service(model, "forecast", len(request.items))
        longest = service.policy.horizon or 1
        if request.horizon is not None and request.horizon > longest:
            raise RequestInvalid((("horizon", f"at most {longest}, which the policy names"),))
        horizon = request.horizon or longest
        items = [item.model_dump() | {"horizon": horizon} for item in request.items]
        return self._decide(service, request.request_id, request.model_dump(exclude={"request_id"}), items, horizon)

    def score(self, model: str, request: ScoreRequest | Mapping[str, Any]) -> list[DecisionRecord]:
        """Risks of shipments, one decision an item, in order; a mapping is read as a ScoreRequest.

        Raises:
            UnknownName: no such risk model. RequestInvalid: more items than the policy allows.
            RequestConflict: the request id came with another body. DependencyDown: not in service, or the log is.
        """
        request = as_request(ScoreRequest, request)
        service = self._service(model, "risk", len(request.items))
        items = [item.model_dump(exclude_none=True) for item in request.items]
        return self._decide(service, request.request_id, {"items": items}, items, 1)

    def outcome(
        self, request: OutcomeRequest | Mapping[str, Any], *, sees: Callable[[str], bool] | None = None
    ) -> list[dict[str, Any]]:
        """Take outcomes; one of event_id, shipment_id, already (seen before) an item.

        Args:
            request: the outcomes.
            sees: whether who posts may know of a model, None for every one. Somebody limited to some models has to
                name decisions, for a shipment belongs to no model and its outcome teaches all.

        Raises:
            RequestInvalid: an unknown decision, or an outcome from the future. DependencyDown: the log is.
        """
        request = as_request(OutcomeRequest, request)
        now = self.clock.now()
        shipments = [self._shipment(place, item.decision_id, sees) for place, item in enumerate(request.items)]
        for place, item in enumerate(request.items):
            if item.occurred_at > now + timedelta(days=1):
                raise RequestInvalid(((f"items.{place}.occurred_at", "a time that has come"),))
        taken: list[dict[str, Any]] = []
        for item, shipment in zip(request.items, shipments, strict=True):
            event = outcome_event(item, shipment, now, request.request_id or uuid.uuid4().hex)
            new = self.outcomes.append(event)
            if new:
                self.metrics.outcome(item.late)
            taken.append({"event_id": event["event_id"], "shipment_id": event["shipment_id"], "already": not new})
        return taken

    def decision(self, wanted: str) -> DecisionRecord:
        """A decision's record.

        Raises:
            UnknownName: no decision of that id.
        """
        record = self.log.find(wanted)
        if record is None:
            raise UnknownName("decision", wanted[:40], ())
        return record

    def ready(self) -> dict[str, Any]:
        """Whether requests can be answered: `ready`, the `models` in service and `problems` by model."""
        self.refresh()
        models: dict[str, Any] = {}
        now = self.clock.now()
        for name in self.models.names():
            shot = self.models.get(name).snapshot
            models[name] = {
                "revision": shot.revision,
                "champion": shot.champion.version if shot.champion else None,
                "stage": shot.stage.value,
                "share": shot.share,
                "stopped": shot.stopped,
                "written_at": shot.written_at.isoformat(),
                "snapshot_age_s": (now - shot.written_at).total_seconds(),
            }
        old = {name: words for name in models if (words := self.models.get(name).too_old(now))}
        return {"ready": len(models) > len(old), "models": models, "problems": {**self.models.problems, **old}}

    def refresh(self) -> tuple[str, ...]:
        """Take changed snapshots into service; returns the models that were swapped."""
        swapped = self.models.refresh()
        for name in swapped:
            self.metrics.in_service(name, self.models.get(name).snapshot.revision)
        return swapped

    def sync(self) -> None:
        """Bring both logs onto the disk."""
        self.log.segments.sync()
        self.outcomes.segments.sync()

    def close(self) -> None:
        """Bring both logs onto the disk and let go of every file."""
        self.sync()
        self.log.segments.close()
        self.outcomes.segments.close()
        closing = getattr(self._online, "close", None)
        if closing is not None:
            closing()

    def _service(self, model: str, kind: Kind, items: int) -> InService:
        if self.auto_refresh:
            self.refresh()
        service = self.models.get(model)
        if service.policy.kind != kind:
            others = [name for name in self.models.names() if self.models.get(name).policy.kind == kind]
            raise UnknownName(f"{kind} model", model, others)
        if words := service.too_old(self.clock.now()):
            raise DependencyDown(f"model {model}", words)
        if items > service.policy.serve.max_items:
            raise RequestInvalid((("items", f"at most {service.policy.serve.max_items} items, as the policy says"),))
        return service

    def _shipment(self, place: int, wanted: str | None, sees: Callable[[str], bool] | None) -> dict[str, Any]:
        if wanted is None and sees is None:
            return {}
        record = self.log.find(wanted) if wanted is not None else None
        if record is None or "shipment_id" not in record.request or (sees is not None and not sees(record.model)):
            raise RequestInvalid(((f"items.{place}.decision_id", "the id of a decision on a shipment"),))
        return record.request

    def _decide(
        self,
        service: InService,
        request_id: str | None,
        body: Mapping[str, Any],
        items: list[dict[str, Any]],
        horizon: int,
    ) -> list[DecisionRecord]:
        model = service.policy.model
        name = request_id or uuid.uuid4().hex
        body_hash = content_hash([model, body])
        now = self.clock.now()
        records: list[DecisionRecord] = []
        for place, item in enumerate(items):
            wanted = decision_id(model, name, place)
            with self._lock:
                record = self.log.replayed(wanted, name, body_hash) if request_id else None
                if record is None:
                    record = self._decision(service, wanted, name, body_hash, item, now, horizon)
                    self.log.append(record)
                    self.metrics.decision(record)
                else:
                    self.metrics.repeat(model)
            records.append(record)
        return records

    def _decision(
        self,
        service: InService,
        wanted: str,
        request_id: str,
        body_hash: str,
        item: dict[str, Any],
        now: datetime,
        horizon: int,
    ) -> DecisionRecord:
        began = perf_counter()
        policy, shot = service.policy, service.snapshot
        fields = {key: value for key, value in item.items() if isinstance(value, str) and key not in NOT_TEXT}
        views = read_views(self._online, service.plan, item, now, horizon)
        chosen = route(
            champion=shot.champion.version if shot.champion else None,
            challenger=shot.challenger.version if shot.challenger else None,
            share=shot.share,
            salt=shot.salt,
            key_name=policy.rollout.canary.key,
            segments=policy.rollout.canary.segments,
            fields=fields,
            revision=shot.revision,
            stopped=shot.stopped,
        )
        answer, manifest = self._answer(service, chosen, item, views, now, horizon)
        provenance = {"service": policy.features, "incumbent": policy.incumbent}
        record = DecisionRecord.model_construct(
            decision_id=wanted,
            request_id=request_id,
            request_hash=body_hash,
            model=policy.model,
            kind=policy.kind,
            as_of=now,
            subject=fields,
            request=item,
            views=views,
            route=chosen,
            answer=answer,
            manifest_sha256=manifest,
            features_hash=service.features_hash,
            policy_hash=shot.policy_hash,
            code_revision=self._revision,
            provenance=provenance,
        )
        provenance.update(seals(record))
        return record.model_copy(update={"latency_ms": (perf_counter() - began) * 1000})

    def _answer(
        self,
        service: InService,
        chosen: Route,
        item: Mapping[str, Any],
        views: tuple[ViewRead, ...],
        now: datetime,
        horizon: int,
    ) -> tuple[Answer, str | None]:
        policy, plan = service.policy, service.plan
        made: dict[bool, Columns] = {}

        def columns(use_stale: bool) -> Columns:
            stale = use_stale and any(view.status == "stale" for view in views)
            if stale not in made:
                made[stale] = columns_for(
                    policy.kind, item, views, plan.service, self._declarations, now, horizon, plan=plan, use_stale=stale
                )
            return made[stale]

        def attempt(rung: Rung) -> Attempt:
            rule = rung is Rung.INCUMBENT
            failure = history_failure(plan, views, rule=rule)
            if failure:
                return Attempt(rung=rung, failure=failure)
            if rule:
                made_of = columns(policy.kind == "forecast")
                return try_rule(
                    policy.incumbent, self._declarations, plan.service, plan.history, levels_of(policy), made_of
                )
            loaded = service.loaded(rung)
            if loaded is None:
                return Attempt(rung=rung, failure=service.refused.get(rung, f"no_version: there is no {rung.value}"))
            return try_model(rung, loaded.version, loaded.model, columns(False), explain=policy.kind == "risk")

        stopped = service.snapshot.stopped
        concerns = feature_concerns(views, plan.optional, policy.serve.max_feature_age, plan.standing)
        told = (f"stopped: {stopped}", *concerns) if stopped else concerns
        answer = climb(rungs(policy.serve.ladder, chosen.arm, stopped=bool(stopped)), attempt, told)
        used = service.loaded(answer.rung)
        return answer, used.manifest_sha256 if used and answer.version else None
