"""How the served answers did against the incumbent rule, on the same matured decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from contracts.decisions import DecisionRecord
from contracts.declarations import Declarations
from contracts.policy import Policy
from models.incumbent import history_view, rate_views, rolling_late_rate, seasonal_naive
from models.metrics import auc, bias, brier, coverage, ece, rmsse, wql
from serving.assemble import columns_for, plan_for


@dataclass(frozen=True)
class LiveRows:
    """One row a matured answer (risk) or answered day (forecast).

    Attributes:
        frame: decision_id, as_of, version, rung, key, target_date, actual, champion (mean or probability as served),
            incumbent, scale (naive_rmse; 1 for risks).
        served: (n, q) quantiles as served; empty for risks.
        rule: (n, q) quantiles of the incumbent rule.
    """

    frame: pd.DataFrame
    served: np.ndarray
    rule: np.ndarray


def risk_rows(
    records: Sequence[DecisionRecord], outcomes: pd.DataFrame, policy: Policy, declarations: Declarations
) -> LiveRows:
    """Answered shipments whose outcome is known.

    Args:
        records: decisions of one risk model.
        outcomes: newest known version of each: shipment_id, late.
        policy: the model's policy.
        declarations: the feature declarations.
    """
    late = dict(zip(outcomes["shipment_id"], outcomes["late"].astype(float), strict=True))
    views, plan = rate_views(declarations, policy.features), plan_for(declarations, policy.features)
    rows = []
    for record in records:
        actual = late.get(record.subject.get("shipment_id", ""))
        if actual is None or record.answer.probability is None:
            continue
        columns = columns_for(
            "risk", record.request, record.views, policy.features, declarations, record.as_of, 1, plan=plan
        )
        rule = float(rolling_late_rate(columns, views)[0])
        rows.append(_row(record, record.subject["shipment_id"], "", actual, record.answer.probability, rule, 1.0))
    return LiveRows(pd.DataFrame(rows), np.empty((len(rows), 0)), np.empty((len(rows), 0)))


def forecast_rows(
    records: Sequence[DecisionRecord], labels: pd.DataFrame, policy: Policy, declarations: Declarations
) -> LiveRows:
    """Answered days whose demand is known.

    Args:
        records: decisions of one forecast model.
        labels: sku, location, target_date, quantity.
        policy: the model's policy.
        declarations: the feature declarations.
    """
    known = {
        (sku, location, date): float(quantity)
        for sku, location, date, quantity in labels[["sku", "location", "target_date", "quantity"]].itertuples(
            index=False
        )
    }
    history, plan = history_view(declarations, policy.features), plan_for(declarations, policy.features)
    levels = policy.training.quantiles
    rows, served, rules = [], [], []
    for record in records:
        if not record.answer.steps:
            continue
        sku, location = record.subject["sku"], record.subject["location"]
        columns = columns_for(
            "forecast",
            record.request,
            record.views,
            policy.features,
            declarations,
            record.as_of,
            len(record.answer.steps),
            plan=plan,
        )
        mean, quantiles = seasonal_naive(columns, history, levels)
        scale = columns[f"{history}__naive_rmse"]
        for place, step in enumerate(record.answer.steps):
            actual = known.get((sku, location, step.target_date))
            if actual is None or not np.isfinite(actual) or not np.isfinite(mean[place]):
                continue
            key = f"{sku}|{location}"
            rows.append(_row(record, key, step.target_date, actual, step.mean, mean[place], scale[place]))
            served.append(list(step.quantiles.values()))
            rules.append(quantiles[place])
    return LiveRows(pd.DataFrame(rows), np.array(served), np.array(rules))


def _row(
    record: DecisionRecord, key: str, date: str, actual: float, champion: float, incumbent: float, scale: float
) -> dict[str, object]:
    return {
        "decision_id": record.decision_id,
        "as_of": record.as_of,
        "version": record.answer.version,
        "rung": str(record.answer.rung),
        "key": key,
        "target_date": date,
        "actual": actual,
        "champion": champion,
        "incumbent": float(incumbent),
        "scale": float(scale),
    }


def risk_scores(rows: LiveRows) -> dict[str, float]:
    """Brier, AUC and ECE of what was served and of the rule, on rows that have both."""
    frame = rows.frame[np.isfinite(rows.frame["incumbent"])]
    actual, ours, rule = (frame[name].to_numpy(dtype=float) for name in ("actual", "champion", "incumbent"))
    return {
        "champion_brier": brier(actual, ours),
        "incumbent_brier": brier(actual, rule),
        "champion_auc": auc(actual, ours),
        "incumbent_auc": auc(actual, rule),
        "champion_ece": ece(actual, ours),
        "incumbent_ece": ece(actual, rule),
        "rows": len(frame),
    }


def forecast_scores(rows: LiveRows, levels: Sequence[float]) -> dict[str, float]:
    """RMSSE, weighted quantile loss, bias and coverage of what was served and of the rule."""
    frame = rows.frame
    actual, ours, rule, scale = (
        frame[name].to_numpy(dtype=float) for name in ("actual", "champion", "incumbent", "scale")
    )
    return {
        "champion_rmsse": rmsse(actual, ours, scale),
        "incumbent_rmsse": rmsse(actual, rule, scale),
        "champion_wql": wql(actual, rows.served, levels),
        "incumbent_wql": wql(actual, rows.rule, levels),
        "champion_bias": bias(actual, ours),
        "incumbent_bias": bias(actual, rule),
        "champion_coverage": coverage(actual, rows.served[:, 0], rows.served[:, -1]),
        "rows": len(frame),
    }
