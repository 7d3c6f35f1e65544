"""Format numbers of artifacts: what version 0.1.0 wrote is read and answers as it did then; others are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest

from contracts.errors import ArtifactRefused
from models.artifact_format import FORMAT, READS
from models.forecaster import ForecastModel
from models.load import load_model
from models.risk import RiskModel

LEVELS = (0.1, 0.5, 0.9)
ROWS = 40
SHIFT = [[-0.1, 0.02, 0.2], [-0.05, 0.0, 0.3]]
PLATT = {"method": "platt", "slope": 0.9, "intercept": 0.15, "x": [], "y": [], "share": 0.0}


def booster(matrix: np.ndarray, target: np.ndarray, objective: str, **more: Any) -> lgb.Booster:
    """A small booster, made with LightGBM itself."""
    params = {"objective": objective, "verbosity": -1, "num_threads": 1, "min_data_in_leaf": 5, **more}
    return lgb.train(params, lgb.Dataset(matrix, target), num_boost_round=5)


def write_json(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(json.dumps(value, sort_keys=True, separators=(",", ":")), encoding="utf-8")


def old_forecast(folder: Path) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """A forecast as 0.1.0 wrote it, field by field; columns, mean and quantiles as 0.1.0 answered them."""
    rng = np.random.default_rng(1)
    lag, scale, month = rng.uniform(1, 9, ROWS), rng.uniform(2, 6, ROWS), rng.integers(1, 13, ROWS).astype(float)
    columns: dict[str, Any] = {"demand_history__mean_7": lag, "demand_history__scale": scale, "month": month}
    columns |= {f"demand_history__season_mean_{day}": rng.uniform(1, 9, ROWS) for day in range(7)}
    columns |= {f"demand_history__lag_{i}": rng.uniform(0, 9, ROWS) for i in range(1, 8)}
    columns |= {"step": np.tile([1.0, 2.0], ROWS // 2), "target_date": np.array(["2026-01-05"] * ROWS, dtype=object)}
    level = np.maximum(scale, 0.5)
    monday = columns["demand_history__season_mean_0"] / level
    matrix = np.column_stack([lag / level, month, np.log(level), monday, columns["step"]])
    target = rng.gamma(2, 0.5, ROWS)
    mean = booster(matrix, target, "tweedie")
    parts = [booster(matrix, target, "quantile", alpha=alpha) for alpha in LEVELS]
    seasons = [f"demand_history__season_mean_{day}" for day in range(7)]
    design = {
        "kind": "forecast",
        "columns": [
            {"name": "mean_7", "how": "by_scale", "sources": ["demand_history__mean_7"], "value": 0.0},
            {"name": "month", "how": "as_is", "sources": ["month"], "value": 0.0},
            {"name": "log_scale", "how": "log_scale", "sources": ["demand_history__scale"], "value": 0.0},
            {
                "name": "season_mean",
                "how": "season_mean",
                "sources": [*seasons, "demand_history__scale", "target_date"],
                "value": 0.0,
            },
            {"name": "step", "how": "as_is", "sources": ["step"], "value": 0.0},
        ],
        "categories": {},
        "rates": [],
        "history": "demand_history",
        "scale_floor": 0.5,
    }
    info = {"model": "demand", "kind": "forecast", "rows": ROWS, "params": {}, "train_until": "2026-01-01T00:00:00Z"}
    spec = {"format": 1, "kind": "forecast", "levels": LEVELS, "horizon": 2, "design": design, "version_info": info}
    folder.mkdir()
    write_json(folder, "spec.json", spec)
    write_json(folder, "calibration.json", {"shift": {"ends": [1, 2], "shifts": SHIFT}})
    (folder / "mean.txt").write_text(mean.model_to_string())
    for alpha, part in zip(LEVELS, parts, strict=True):
        (folder / f"quantile_{alpha:g}.txt").write_text(part.model_to_string())
    table = np.maximum(np.sort(np.column_stack([p.predict(matrix) for p in parts]) * level[:, None], axis=1), 0)
    table = table + (table[:, -1:] - table[:, :1]) * np.array(SHIFT)[columns["step"].astype(int) - 1]
    return columns, np.maximum(mean.predict(matrix), 0) * level, np.maximum(np.sort(table, axis=1), 0)


def old_risk(folder: Path) -> tuple[dict[str, Any], np.ndarray]:
    """A classifier as 0.1.0 wrote it, field by field; columns and probabilities as 0.1.0 answered them."""
    rng = np.random.default_rng(2)
    hour = rng.integers(0, 24, ROWS).astype(float)
    carrier = rng.choice(["A", "B"], ROWS).astype(object)
    matrix = np.column_stack([hour, (carrier == "B").astype(float)])
    trees = booster(matrix, (hour > 12).astype(float), "binary")
    design = {
        "kind": "risk",
        "columns": [
            {"name": "hour", "how": "as_is", "sources": ["hour"], "value": 0.0},
            {"name": "carrier", "how": "category", "sources": ["carrier"], "value": 0.0},
        ],
        "categories": {"carrier": ["A", "B"]},
        "rates": [],
        "history": "",
        "scale_floor": 0.001,
    }
    info = {"model": "late_delivery", "kind": "risk", "rows": ROWS, "params": {}}
    spec = {"format": 1, "kind": "risk", "linear_share": 0.25, "design": design, "version_info": info}
    linear = {
        "places": [0],
        "rate_places": [],
        "centre": [11.5],
        "spread": [7.0],
        "coefficients": [0.8],
        "intercept": -0.2,
    }
    folder.mkdir()
    write_json(folder, "spec.json", spec)
    write_json(folder, "linear.json", linear)
    write_json(folder, "calibration.json", PLATT)
    (folder / "trees.txt").write_text(trees.model_to_string())
    odds = 0.75 * trees.predict(matrix, raw_score=True) + 0.25 * (-0.2 + 0.8 * (hour - 11.5) / 7.0)
    return {"hour": hour, "carrier": carrier}, 1 / (1 + np.exp(-(0.9 * odds + 0.15)))


def test_a_forecast_of_format_1_answers_as_it_did(tmp_path: Path) -> None:
    """Mean and shifted quantiles of an artifact of 0.1.0, against the formula on LightGBM's own answers."""
    columns, mean, table = old_forecast(tmp_path / "old")
    model = load_model(tmp_path / "old")
    assert isinstance(model, ForecastModel)
    answered = model.predict(columns)
    np.testing.assert_allclose(answered[0], mean, rtol=1e-12)
    np.testing.assert_allclose(answered[1], table, rtol=1e-12)
    assert (table[:, -1] - table[:, 0]).max() > 0
    assert model.importance()
    assert model.version_info["model"] == "demand"


def test_a_classifier_of_format_1_answers_as_it_did(tmp_path: Path) -> None:
    """Blend and Platt calibration of an artifact of 0.1.0, and its reasons."""
    columns, probability = old_risk(tmp_path / "old")
    model = load_model(tmp_path / "old")
    assert isinstance(model, RiskModel)
    np.testing.assert_allclose(model.predict(columns), probability, rtol=1e-12)
    assert np.ptp(probability) > 0.1
    assert len(model.reasons(columns)) == ROWS


def test_an_old_artifact_saved_again_is_of_the_new_format(tmp_path: Path) -> None:
    """Reading 1 and writing 2 keeps every answer, to the last bit."""
    for number, (kind, write) in enumerate((("forecast", old_forecast), ("risk", old_risk))):
        columns = write(tmp_path / kind)[0]
        old = load_model(tmp_path / kind)
        old.save(tmp_path / f"new{number}")
        assert json.loads((tmp_path / f"new{number}" / "spec.json").read_text())["format"] == FORMAT
        new = load_model(tmp_path / f"new{number}")
        one, other = old.predict(columns), new.predict(columns)
        assert np.column_stack(one).tobytes() == np.column_stack(other).tobytes()


@pytest.mark.parametrize(
    ("found", "hint"),
    [(0, "train the model again"), (FORMAT + 1, "upgrade"), ("2", "train"), (True, "train"), (None, "train")],
)
def test_another_format_is_refused_with_what_to_do(tmp_path: Path, found: object, hint: str) -> None:
    """Neither older than the one before nor newer than this one, and no guess at what is no number."""
    assert READS == (FORMAT, FORMAT - 1)
    old_risk(tmp_path / "old")
    spec = json.loads((tmp_path / "old" / "spec.json").read_text())
    write_json(tmp_path / "old", "spec.json", spec | {"format": found})
    with pytest.raises(ArtifactRefused, match=f"wanted format 2 or 1, got .*{hint}"):
        load_model(tmp_path / "old")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("spec.json", "[]"),
        ("spec.json", "{"),
        ("spec.json", '{"format": 1, "kind": "oracle"}'),
        ("spec.json", '{"format": 1, "kind": "risk"}'),
        ("trees.txt", "tree\nversion=v4\n"),
        ("linear.json", '{"places": "all"}'),
        ("calibration.json", None),
    ],
)
def test_a_folder_that_is_no_whole_model_is_refused(tmp_path: Path, file: str, text: str | None) -> None:
    """A clear refusal, whatever file is wrong or missing; no vendor's traceback."""
    old_risk(tmp_path / "old")
    shutil.copytree(tmp_path / "old", tmp_path / "bad")
    if text is None:
        (tmp_path / "bad" / file).unlink()
    else:
        (tmp_path / "bad" / file).write_text(text)
    with pytest.raises(ArtifactRefused, match="bad"):
        load_model(tmp_path / "bad")
