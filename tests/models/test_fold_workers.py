"""Backtests over processes: the same answers to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from contracts.declarations import load_declarations
from contracts.policy import load_policy
from models.backtest import backtest_forecast
from models.risk_backtest import backtest_risk
from tests.models.training_task import made_up

ROOT = Path(__file__).resolve().parents[2]


def test_two_processes_answer_like_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forecast's and a risk's backtest over two worker processes equal those of one process, bit by bit."""
    made = made_up()
    declared = load_declarations(ROOT / "features" / "repo")
    demand, risk = (made.quick(load_policy(ROOT / "policies" / f"{name}.yaml")) for name in ("demand", "late_delivery"))
    sales, shipments = made.demand_rows(), made.risk_rows(n=3000)
    found = []
    for workers in ("1", "2"):
        monkeypatch.setenv("SEATRIAL_WORKERS", workers)
        forecast = backtest_forecast(demand, sales, declared, made.NOW)
        risks = backtest_risk(risk, shipments, declared, made.NOW)
        found.append((forecast.mean, forecast.quantiles, risks.probability))
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)
