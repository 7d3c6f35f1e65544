"""What a training measures for the gate beside its losses: stability, what predicting costs, and on which rows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from contracts.declarations import Declarations
from contracts.errors import ArtifactRefused
from contracts.evaluation import TrainedModel
from contracts.policy import Policy, Predict, Stability
from models.load import load_model
from models.noise import stability
from models.predict_cost import predict_memory_mb
from models.training import read_evaluation, train

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, risk_policy: Policy, declarations: Declarations, risk: pd.DataFrame
) -> TrainedModel:
    """A risk model whose policy asks for everything that can be had cheaply."""
    asked = {"predict": Predict(p99_ms=1000), "stability": Stability(noise=0.05, max_change=1.0)}
    policy = risk_policy.model_copy(update={"gate": risk_policy.gate.model_copy(update=asked)})
    return train(policy, risk, declarations, now=NOW, out=tmp_path_factory.mktemp("gate") / "risk")


def test_what_was_asked_for_is_measured(trained: TrainedModel) -> None:
    """A time, a change at the noise that was asked for, one hash for all sides; memory was not asked for."""
    found = trained.evaluation
    assert set(found.predict) == {"p99_ms"}
    assert 0 < found.predict["p99_ms"] < 1000
    assert found.stability["noise"] == 0.05
    assert 0 < found.stability["change"] < 1
    hashes = found.dataset["hash_by_side"]
    assert set(hashes) == {"candidate", "incumbent"}
    assert len(set(hashes.values())) == 1


def test_an_evaluation_is_read_back_without_what_is_never_the_same_twice(trained: TrainedModel) -> None:
    """Everything else is as it was; no sealed file holds a time."""
    found = read_evaluation(trained.folder)
    assert found.predict == {}
    assert found.losses.equals(trained.evaluation.losses)
    assert found.metrics.equals(trained.evaluation.metrics)
    for name in ("loss", "dataset", "calibration", "reference_loss", "stability"):
        assert getattr(found, name) == getattr(trained.evaluation, name)
    assert not [path for path in trained.folder.glob("*.json") if "p99_ms" in path.read_text()]


def test_an_evaluation_of_version_0_1_gets_the_hash_of_its_rows(trained: TrainedModel, tmp_path: Path) -> None:
    """Which noted neither hashes nor stability: sides that have losses were measured on the rows in its files."""
    for name in ("losses.parquet", "predictions.parquet"):
        (tmp_path / name).write_bytes((trained.folder / name).read_bytes())
    plain = json.loads((trained.folder / "evaluation.json").read_text())
    plain["dataset"].pop("hash_by_side")
    plain.pop("stability")
    (tmp_path / "evaluation.json").write_text(json.dumps(plain))
    found = read_evaluation(tmp_path)
    assert found.dataset["hash_by_side"] == trained.evaluation.dataset["hash_by_side"]
    assert found.stability == {}


@pytest.mark.parametrize("text", [None, "", "{}", "[]", '{"dataset": 3}'])
def test_half_an_evaluation_is_refused(text: str | None, tmp_path: Path) -> None:
    """With the folder's name."""
    if text is not None:
        (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(ArtifactRefused, match=tmp_path.name):
        read_evaluation(tmp_path)


def test_more_noise_moves_predictions_more(trained: TrainedModel, risk: pd.DataFrame) -> None:
    """The same draws again give the same figure; missing values and texts do not matter."""
    model = load_model(trained.folder)
    rows = risk.tail(500).assign(origin_weather__pressure=np.nan)
    small, again, large = (stability(model, rows, noise=noise, seed=3) for noise in (0.01, 0.01, 0.3))
    assert small == again
    assert small["rows"] == 500
    assert 0 < small["change"] < large["change"]


def test_predictions_without_a_spread_have_no_stability(trained: TrainedModel, risk: pd.DataFrame) -> None:
    """There is nothing to hold a change against."""
    model = load_model(trained.folder)
    assert "change" not in stability(model, risk.head(1), noise=0.01, seed=3)


@pytest.mark.slow
def test_a_loaded_model_takes_memory(trained: TrainedModel) -> None:
    """About what its text has in bytes; a folder that holds no model was not measured."""
    found = predict_memory_mb(trained.folder)
    if found is None:
        pytest.skip("this kernel does not tell resident memory (no /proc)")
    size = sum(path.stat().st_size for path in trained.folder.glob("*.txt")) / 1e6
    assert size / 10 < found < 10 * size
    assert predict_memory_mb(trained.folder / "nowhere") is None
