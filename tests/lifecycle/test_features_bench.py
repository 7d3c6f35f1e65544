"""`seatrial features bench` on a small workspace of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from contracts.errors import InputInvalid, UnknownName
from contracts.times import SystemClock
from lifecycle.commands import app
from lifecycle.commands.bench import sampled_rows
from lifecycle.workspace import Workspace

FEATURES = """\
project: tiny
views:
  lanes: {kind: outcome_rates, keys: [origin, destination], tick: 1d, ttl: 3d, windows: [7]}
  ports: {kind: signal_latest, keys: [origin], ttl: 2d, names: [wind]}
services:
  late_v1: {views: [ports, lanes]}
"""


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "features.yaml").write_text(FEATURES)
    monkeypatch.setenv("SEATRIAL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SEATRIAL_FEATURES", str(tmp_path / "features"))
    return Workspace(clock=SystemClock())


def filled(ws: Workspace) -> Workspace:
    rng = np.random.default_rng(1)
    days = pd.Series(pd.date_range("2026-01-01", periods=30, tz="UTC").astype("datetime64[us, UTC]"))
    ticks = days.repeat(4).reset_index(drop=True)
    times = {"event_time": ticks, "known_at": ticks}
    lanes = pd.DataFrame({"origin": list("aabb") * 30, "destination": list("xyxy") * 30, **times})
    for column in ("late_rate_7", "delay_mean_7", "n_7"):
        lanes[column] = rng.normal(size=120)
    ports = pd.DataFrame({"origin": list("abcd") * 30, **times, "wind": rng.normal(size=120)})
    ws.gold.append("lanes", lanes)
    ws.gold.append("ports", ports)
    return ws


def test_rows_are_sampled_from_what_the_workspace_has(ws: Workspace):
    """Keys that belong together stay together, moments lie in the span of the rows, the same seed gives the same."""
    rows = sampled_rows(filled(ws), "late_v1", 200)
    assert set(zip(rows["origin"], rows["destination"], strict=True)) == {(o, d) for o in "ab" for d in "xy"}
    assert rows["event_timestamp"].min() >= pd.Timestamp("2026-01-01", tz="UTC")
    assert rows["event_timestamp"].max() <= pd.Timestamp("2026-01-30", tz="UTC")
    assert rows["event_timestamp"].nunique() > 150
    pd.testing.assert_frame_equal(rows, sampled_rows(ws, "late_v1", 200))


def test_an_empty_workspace_and_an_unknown_service_are_named(ws: Workspace):
    """Both say what to do before anything is measured."""
    runner = CliRunner()
    empty = runner.invoke(app, ["features", "bench", "--json"])
    assert isinstance(empty.exception, InputInvalid)
    assert "materialize" in str(empty.exception)
    unknown = runner.invoke(app, ["features", "bench", "--service", "late_v2"])
    assert isinstance(unknown.exception, UnknownName)
    assert "late_v1" in str(unknown.exception)
    assert isinstance(runner.invoke(app, ["features", "bench", "--engine", "dusk"]).exception, UnknownName)


def test_every_way_answers_all_rows_alike(ws: Workspace):
    """With an index and without one: as many rows as asked, equal values."""
    filled(ws)
    ended = CliRunner().invoke(
        app, ["features", "bench", "--rows", "150", "--rounds", "1", "--engine", "local", "--json"]
    )
    assert ended.exit_code == 0, ended.output
    result = json.loads(ended.output)["late_v1"]
    assert result["equal"] is True
    assert result["source"] == {"ports": 120, "lanes": 120}
    assert set(result["ways"]) == {"local, index present", "local, no index"}
    assert all(way["rows"] == 150 and way["wall"] > 0 and way["peak_mb"] > 50 for way in result["ways"].values())
    assert result["build"]["megabytes"] > 0
