"""Making a decision again from its record alone, to the last bit, and naming what differs when it does not come out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from contracts.decisions import DecisionRecord, Rung
from contracts.declarations import Declarations
from contracts.errors import SeatrialError
from models.load import load_model
from registry.artifacts import ArtifactStore, verify
from serving.answers import Model, try_model, try_rule
from serving.assemble import columns_for, history_failure, plan_for
from serving.ladder import Attempt
from serving.seals import seals

Part = Literal["data", "features", "model", "policy", "code"]


@dataclass(frozen=True)
class ReplayResult:
    """What a replay found.

    Attributes:
        same: the answer came out the same to the last bit.
        differs: which of data, features, model, policy, code are not what the record names. A policy or code that has
            moved on since is named here even when the answer is the same.
        words: one sentence for a person.
        again: what came out, None when nothing could be computed.
    """

    same: bool
    differs: tuple[Part, ...]
    words: str
    again: Attempt | None = None


def replay(
    record: DecisionRecord,
    artifacts: ArtifactStore,
    declarations: Declarations,
    policy_hash: str,
    code_revision: str,
) -> ReplayResult:
    """Compute a recorded decision again.

    Args:
        record: the decision; its request, features as read, rung and version are all that is used.
        artifacts: where the version's sealed artifact is; it is verified before it is loaded.
        declarations: the views and services of today.
        policy_hash: of the model's policy today.
        code_revision: of the code that runs now.

    Returns:
        A refusal is the same when the incumbent rule, tried again, still has no answer (or was not on the ladder).
    """
    notes: dict[Part, str] = {}
    sealed, now = record.provenance, seals(record)
    if sealed.get("seal_data") != now["seal_data"]:
        notes["data"] = "request, route or answer were changed after the decision"
    if sealed.get("seal_features") != now["seal_features"]:
        notes["features"] = "the features as read were changed after the decision"
    service = sealed.get("service", "")
    if service not in declarations.services:
        notes.setdefault("features", f"feature service {service!r} is not declared any more")
    elif declarations.service_hash(service) != record.features_hash:
        notes.setdefault("features", f"feature service {service} is declared otherwise today")
    if policy_hash != record.policy_hash:
        notes["policy"] = f"policy was {record.policy_hash[:12]}, is {policy_hash[:12]}"
    if code_revision != record.code_revision:
        notes["code"] = f"code was {record.code_revision}, is {code_revision}"
    again = _again(record, artifacts, declarations, service, notes)
    same = again is not None and _same(record, again)
    return ReplayResult(same=same, differs=tuple(notes), words=_words(record, same, notes, again), again=again)


def _again(
    record: DecisionRecord, artifacts: ArtifactStore, declarations: Declarations, service: str, notes: dict[Part, str]
) -> Attempt | None:
    """The answering rung's try again, or None (with a note) when it cannot even be tried."""
    answer = record.answer
    rung = Rung.INCUMBENT if answer.rung is Rung.REFUSE else answer.rung
    try:
        plan = plan_for(declarations, service)
        failure = history_failure(plan, record.views, rule=rung is Rung.INCUMBENT)
        if failure:
            return Attempt(rung=rung, failure=failure)
        stale = rung is Rung.INCUMBENT and record.kind == "forecast"
        horizon = int(record.request.get("horizon", 1))
        columns = columns_for(
            record.kind, record.request, record.views, service, declarations, record.as_of, horizon,
            plan=plan, use_stale=stale,
        )  # fmt: skip
    except (SeatrialError, StopIteration, ValueError, TypeError) as error:
        notes.setdefault("features", f"the columns cannot be made again: {error}")
        return None
    if rung is Rung.INCUMBENT:
        levels = [float(name) for name in answer.steps[0].quantiles] if answer.steps else [0.5]
        return try_rule(record.provenance.get("incumbent", ""), declarations, service, plan.history, levels, columns)
    version = answer.version or ""
    try:
        folder, manifest = artifacts.path(record.model, version), record.manifest_sha256 or ""
        verify(folder, manifest)
        model = _load(folder, manifest)
    except (SeatrialError, OSError, ValueError, KeyError) as error:
        notes["model"] = f"{version} cannot be used: {error}"
        return None
    return try_model(rung, version, model, columns, explain=record.kind == "risk")


@lru_cache(maxsize=8)
def _load(folder: Path, manifest_sha256: str) -> Model:
    """A model, kept while many of its decisions are replayed; its files are verified before every use."""
    return load_model(folder)


def _same(record: DecisionRecord, again: Attempt) -> bool:
    answer = record.answer
    if answer.rung is Rung.REFUSE:
        on_ladder = any(words.startswith(f"{Rung.INCUMBENT.value}:") for words in answer.degraded)
        return bool(again.failure) or not on_ladder
    if again.failure:
        return False
    # repr tells -0.0 from 0.0 and every float from its neighbours.
    return repr((answer.steps, answer.probability, answer.reasons)) == repr(
        (again.steps, again.probability, again.reasons)
    )


def _words(record: DecisionRecord, same: bool, notes: dict[Part, str], again: Attempt | None) -> str:
    told = "; ".join(f"{part}: {words}" for part, words in notes.items())
    if same:
        result = f"{record.decision_id} came out the same to the last bit"
        return f"{result}, though not all is as it was: {told}" if told else result
    failed = f" ({again.failure})" if again is not None and again.failure else ""
    return f"{record.decision_id} came out differently{failed}: {told or 'nothing recorded explains it'}"
