"""Fixtures of a real MLflow registry in a database of its own; a test module imports the ones that it asks for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.registry.rig import MODEL


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One MLflow database for all tests of a process; making its schema takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def client(tracking_uri: str) -> Any:
    """MLflow's own client, with the model's earlier registration removed."""
    from mlflow import MlflowClient

    found = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    if found.search_registered_models(f"name = '{MODEL}'"):
        found.delete_registered_model(MODEL)
    return found
