"""MLflow's model registry as a projection of the ledger: versions, aliases and tags for others to read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from contracts.errors import DependencyDown
from contracts.rollout import RolloutState, Stage

T = TypeVar("T")
VERSION_TAG = "seatrial_version"
ALIASES = ("champion", "canary", "shadow")
# MLflow's own patience is 7 retries of two minutes each: a promotion would wait for a quarter of an hour.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "1",
}


class MlflowProjection:
    """Writes what the ledger says into MLflow; nothing here is ever read back as truth.

    Args:
        tracking_uri: MLflow tracking and registry URI, like `sqlite:///path/to/mlflow.db`.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri
        self._remote = tracking_uri.startswith(("http://", "https://"))
        self._made: Any = None

    def register(self, model: str, version: str, run_id: str, source: Path, manifest_sha256: str) -> str:
        """The MLflow version that stands for a Seatrial version; made when it is not there yet.

        Args:
            source: the sealed artifact's folder.
            manifest_sha256: its identity, kept as a tag.

        Returns:
            MLflow's version number, as text.

        Raises:
            DependencyDown: MLflow does not answer.
        """

        def make(client: Any) -> str:
            known = self._known(client, model)
            if version in known:
                return str(known[version].version)
            tags = {VERSION_TAG: version, "seatrial_manifest_sha256": manifest_sha256}
            # A tracking server takes no path of its callers' machines; the manifest in the tags says what it is.
            place = f"seatrial:///{model}/{version}" if self._remote else source.absolute().as_uri()
            found = client.create_model_version(model, source=place, run_id=run_id or None, tags=tags)
            return str(found.version)

        return self._ask(make)

    def versions(self, model: str) -> dict[str, str]:
        """Seatrial version -> MLflow version of everything projected so far."""
        return self._ask(lambda client: {name: str(v.version) for name, v in self._known(client, model).items()})

    def project(self, state: RolloutState) -> None:
        """Set aliases champion, canary and shadow and the versions' tags to what the state says; idempotent.

        Raises:
            DependencyDown: MLflow does not answer, or a version was not registered there.
        """

        def write(client: Any) -> None:
            known, wanted = self._known(client, state.model), _aliases(state)
            missing = [name for name in wanted.values() if name not in known]
            if missing:
                raise DependencyDown("mlflow", f"{state.model} {missing[0]} is not registered there")
            found = self._found(client, state.model, known)
            for alias in set(found) - set(wanted):
                client.delete_registered_model_alias(state.model, alias)
            for alias, name in wanted.items():
                if found.get(alias) != name:
                    client.set_registered_model_alias(state.model, alias, known[name].version)
            for name, version in known.items():
                for key, value in _tags(state, name).items():
                    if version.tags.get(key) != value:
                        client.set_model_version_tag(state.model, version.version, key, value)
                if version.description != _described(state, name):
                    client.update_model_version(state.model, version.version, _described(state, name))
            client.update_registered_model(state.model, _words(state))
            client.set_registered_model_tag(state.model, "seatrial_revision", str(state.revision))

        self._ask(write)

    def differences(self, state: RolloutState) -> list[str]:
        """In words, each alias, tag or text that MLflow shows otherwise than the ledger, and each version that is in
        use and gone there; empty when all agree.

        Raises:
            DependencyDown: MLflow does not answer.
        """

        def compare(client: Any) -> list[str]:
            known, wanted = self._known(client, state.model), _aliases(state)
            found = self._found(client, state.model, known)
            words = [
                f"alias {alias} of {state.model}: the ledger says {wanted.get(alias, 'nobody')}, "
                f"MLflow says {found.get(alias, 'nobody')}"
                for alias in ALIASES
                if wanted.get(alias) != found.get(alias)
            ]
            in_use = dict.fromkeys((state.champion, state.previous_champion, state.challenger))
            words += [
                f"{state.model} {name} is in use and is gone in MLflow" for name in in_use if name and name not in known
            ]
            for name, version in known.items():
                for key, value in _tags(state, name).items():
                    if version.tags.get(key) != value:
                        seen = version.tags.get(key, "nothing")
                        words.append(f"tag {key} of {state.model} {name}: the ledger says {value}, MLflow says {seen}")
                if version.description != _described(state, name):
                    words.append(f"the description of {state.model} {name} in MLflow is not what the ledger says")
            return words

        return self._ask(compare)

    def shown(self, model: str) -> dict[str, str]:
        """Our aliases as MLflow shows them: alias -> Seatrial version, or `MLflow version n` for a stranger.

        Raises:
            DependencyDown: MLflow does not answer.
        """
        return self._ask(lambda client: self._found(client, model, self._known(client, model)))

    def _known(self, client: Any, model: str) -> dict[str, Any]:
        """Seatrial version -> MLflow model version, the oldest where a tag was copied; makes the model if need be."""
        if not list(client.search_registered_models(f"name = '{model}'", max_results=1)):
            _made_or_there(client, model)
        found = sorted(client.search_model_versions(f"name = '{model}'"), key=lambda v: int(v.version), reverse=True)
        return {v.tags[VERSION_TAG]: v for v in found if VERSION_TAG in v.tags}

    def _found(self, client: Any, model: str, known: dict[str, Any]) -> dict[str, str]:
        """Our aliases as MLflow has them: alias -> Seatrial version, or `MLflow version n` for a stranger."""
        names = {str(v.version): name for name, v in known.items()}
        aliases = dict(client.get_registered_model(model).aliases)
        return {
            alias: names.get(str(number), f"MLflow version {number}")
            for alias, number in aliases.items()
            if alias in ALIASES
        }

    def _ask(self, work: Callable[[Any], T]) -> T:
        try:
            return work(self._client())
        except DependencyDown:
            raise
        except Exception as error:  # MLflow lets through whatever its store raises
            raise DependencyDown("mlflow", (str(error).splitlines() or [type(error).__name__])[0]) from error

    def _client(self) -> Any:
        if self._made is None:
            os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
            os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
            for name, value in _PATIENCE.items():
                os.environ.setdefault(name, value)
            from mlflow import MlflowClient  # seconds to import: only who projects pays

            self._made = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        return self._made


def _made_or_there(client: Any, model: str) -> None:
    try:
        client.create_registered_model(model, tags={"made_by": "seatrial"})
    except Exception:  # somebody made it between our look and now
        client.get_registered_model(model)


def _aliases(state: RolloutState) -> dict[str, str]:
    wanted = {"champion": state.champion} if state.champion else {}
    if state.challenger and state.stage in (Stage.CANARY, Stage.SHADOW):
        wanted[state.stage.value] = state.challenger
    return {alias: version for alias, version in wanted.items() if version}


def _tags(state: RolloutState, version: str) -> dict[str, str]:
    stage = "none"
    if version == state.champion:
        stage = "champion"
    elif version == state.challenger:
        stage = state.stage.value
    return {"seatrial_stage": stage, "seatrial_gate": state.gates.get(version, "none")}


def _described(state: RolloutState, version: str) -> str:
    """What MLflow's page of a version says; only what the ledger knows, so that the same state gives the same words."""
    stage, gate = _tags(state, version).values()
    stands = f"It is {stage}." if stage != "none" else "It is not in use."
    sealed = state.manifests.get(version, "unknown")
    return f"Seatrial {version} of {state.model}. {stands} Gate: {gate}. Manifest {sealed}."


def _words(state: RolloutState) -> str:
    """What MLflow's page of the model says."""
    serving = f"{state.champion} serves" if state.champion else "nobody serves"
    trial = f", {state.challenger} is {state.stage.value}" if state.challenger else ""
    return f"{serving}{trial}. Written from the ledger of Seatrial; changes made here are reported and undone."
