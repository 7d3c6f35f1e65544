"""How a recorded decision would have been routed and answered with other versions in service."""

from __future__ import annotations

from contracts.decisions import Answer, DecisionRecord, Rung, ShadowScore
from contracts.declarations import Declarations
from contracts.policy import Policy
from lifecycle.policy_replay_scores import Scores
from registry.snapshot import Deployed, ServingSnapshot
from serving.answers import levels_of, try_rule
from serving.assemble import history_failure
from serving.ladder import Attempt, climb, feature_concerns, rungs
from serving.routing import route


class Answering:
    """Routes and answers recorded decisions by a serving snapshot, with the routing and the ladder that serve live.

    Args:
        scores: what each version says to each decision.
        policy: canary key and segments, ladder, age of features.
        declarations: views and services.
    """

    def __init__(self, scores: Scores, policy: Policy, declarations: Declarations) -> None:
        self.scores, self.policy, self._declarations = scores, policy, declarations

    def record(self, place: int, snapshot: ServingSnapshot | None) -> DecisionRecord:
        """The decision at a place of the log as it would have been made; the recorded one where nothing differs.

        Args:
            place: in `scores.records`.
            snapshot: what is in service, None when nothing is.
        """
        recorded = self.scores.records[place]
        policy, versions, stopped = self.policy, _versions(snapshot), snapshot.stopped if snapshot else ""
        chosen = route(
            champion=versions.get(Rung.CHAMPION),
            challenger=versions.get(Rung.CANARY),
            share=snapshot.share if snapshot else 0.0,
            salt=snapshot.salt if snapshot else "",
            key_name=policy.rollout.canary.key,
            segments=policy.rollout.canary.segments,
            fields=recorded.subject,
            revision=snapshot.revision if snapshot else 0,
            stopped=stopped,
        )

        def attempt(rung: Rung) -> Attempt:
            if rung is Rung.INCUMBENT:
                return self._rule(recorded)
            version = versions.get(rung)
            if version is None:
                return Attempt(rung=rung, failure=f"no_version: there is no {rung.value}")
            return self.scores.attempt(place, version, rung)

        plan = self.scores.plan
        concerns = feature_concerns(recorded.views, plan.optional, policy.serve.max_feature_age, plan.standing)
        if stopped:
            concerns = (*concerns, f"stopped: {stopped}")
        answer = climb(rungs(policy.serve.ladder, chosen.arm, stopped=bool(stopped)), attempt, concerns)
        if chosen == recorded.route and _same(answer, recorded.answer):
            return recorded
        return recorded.model_copy(update={"route": chosen, "answer": answer, "policy_hash": policy.hash})

    def shadow(self, place: int, record: DecisionRecord, snapshot: ServingSnapshot | None) -> ShadowScore | None:
        """The answer of whoever of challenger and champion did not answer; None when none is due.

        Args:
            place, record: the decision, as it was answered here.
            snapshot: what is in service when the shadow scorer comes round.
        """
        if snapshot is None or snapshot.challenger is None or snapshot.stopped:
            return None
        until, versions = snapshot.challenger.trained_until, _versions(snapshot)
        if until is not None and record.as_of < until:
            return None
        rung = Rung.CHAMPION if record.answer.version == versions[Rung.CANARY] else Rung.CANARY
        if rung not in versions:
            return None
        tried = self.scores.attempt(place, versions[rung], rung)
        return ShadowScore(
            decision_id=record.decision_id,
            model=record.model,
            version=versions[rung],
            as_of=record.as_of,
            steps=tried.steps,
            probability=tried.probability,
            error=tried.failure,
        )

    def _rule(self, record: DecisionRecord) -> Attempt:
        plan, policy = self.scores.plan, self.policy
        if failure := history_failure(plan, record.views, rule=True):
            return Attempt(rung=Rung.INCUMBENT, failure=failure)
        columns = self.scores.columns(record, use_stale=policy.kind == "forecast")
        return try_rule(policy.incumbent, self._declarations, plan.service, plan.history, levels_of(policy), columns)


def _versions(snapshot: ServingSnapshot | None) -> dict[Rung, str]:
    if snapshot is None:
        return {}
    deployed: dict[Rung, Deployed | None] = {
        Rung.CHAMPION: snapshot.champion,
        Rung.CANARY: snapshot.challenger,
        Rung.PREVIOUS_CHAMPION: snapshot.previous_champion,
    }
    return {rung: one.version for rung, one in deployed.items() if one is not None}


def _same(again: Answer, recorded: Answer) -> bool:
    """Equal but for the reasons of a risk, which nothing here is decided on."""
    return (again.rung, again.version, again.steps, again.probability, again.degraded) == (
        recorded.rung,
        recorded.version,
        recorded.steps,
        recorded.probability,
        recorded.degraded,
    )
