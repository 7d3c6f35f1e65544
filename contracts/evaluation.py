"""What a backtest says of a candidate: metrics in long format and paired losses, row by row."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

LOSS_COLUMNS = ("row_id", "as_of", "origin", "candidate", "incumbent", "champion")
METRIC_COLUMNS = ("who", "metric", "segment", "slice", "value", "rows")


@dataclass(frozen=True)
class Evaluation:
    """A candidate's backtest.

    Attributes:
        losses: one row per scored row, sorted by as_of: row_id (text), as_of (UTC; time of the decision), origin (UTC;
            which fold), candidate, incumbent (loss of each, >= 0, lower is better), champion (loss, NaN where the
            champion was trained on the row or does not exist), and `segment_<name>` text columns.
        metrics: long format: who (candidate | champion | incumbent | a rival's name), metric, segment ("" for all, else
            "name=value"), slice ("" or "horizon=1-7"), value, rows.
        loss: name of the loss (the policy's gate metric).
        dataset: hash, rows, as_of range of the rows that were scored; leakage_audit; sources (what was known of each);
            hash_by_side (who -> hash of the row ids and labels that its answers were measured on).
        calibration: ece (risk), or coverage and bias (forecast), of the candidate on the scored rows.
        reference_loss: the candidate's mean loss: the figure that monitoring compares with.
        stability: noise and change (see models.noise), empty when the policy did not ask.
        predict: p99_ms of one row and memory_mb of the loaded model, on the machine that trained; empty when the policy
            did not ask. Never the same twice, so it is in no sealed file, only in what the gate records.
    """

    losses: pd.DataFrame
    metrics: pd.DataFrame
    loss: str
    dataset: dict[str, Any]
    calibration: dict[str, float]
    reference_loss: float
    stability: dict[str, float] = field(default_factory=dict)
    predict: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainedModel:
    """A candidate on disk, not yet registered: its folder of plain files (no manifest yet) and how it did."""

    model: str
    kind: str
    folder: Path
    evaluation: Evaluation
    trained_at: datetime
    train_until: datetime
    rows: int
    dataset_hash: str
    params: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Path] = field(default_factory=dict)
