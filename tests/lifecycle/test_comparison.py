"""Contenders on the same rows: who is better, by how much, where; and what two versions were made from."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from lifecycle.comparison import Paired, by_part, differences, unlike
from tests.registry.rig import policy

START = datetime(2026, 1, 1, tzinfo=UTC)


def paired(days: int, gain: float) -> Paired:
    """Losses around 0.2 of v1, v2 (less by `gain`) and a rule that is worse by a tenth; ten rows a day."""
    rng = np.random.default_rng(4)
    base = rng.uniform(0.1, 0.3, days * 10)
    frame = pd.DataFrame(
        {
            "row_id": [f"r{i}" for i in range(days * 10)],
            "as_of": pd.to_datetime([START + timedelta(days=i // 10) for i in range(days * 10)], utc=True),
            "v1": base,
            "v2": base * (1 - gain),
            "incumbent": base * 1.1,
            "segment_origin": np.where(np.arange(days * 10) % 2 == 0, "EWR", "JFK"),
        }
    )
    return Paired(frame, ("v1", "v2", "incumbent"), "made up")


def test_a_clear_gain_is_said_with_its_size() -> None:
    """Four percent less loss on every row is four percent, with bounds around it, in every pair's own direction."""
    found = {(line["of"], line["against"]): line for line in differences(paired(30, 0.04), policy())}
    assert found["v1", "v2"]["less_loss"] == pytest.approx(1 - 1 / 0.96)
    assert found["v1", "v2"]["words"] == "v2 is better"
    assert found["v2", "incumbent"]["less_loss"] == pytest.approx(1 - 0.96 / 1.1)
    assert found["v1", "incumbent"]["words"] == "v1 is better"


def test_equal_contenders_and_few_days_are_no_verdict() -> None:
    """The same losses show no difference; two days give no bounds, and None is what JSON can hold."""
    assert differences(paired(30, 0.0), policy())[0]["words"] == "no difference that these rows can show"
    few = differences(paired(2, 0.5), policy())[0]
    assert (few["lower"], few["upper"], few["words"]) == (None, None, "too few days to say")


def test_parts_add_up_and_settings_differ_by_name() -> None:
    """Means by segment weighted by rows are the mean of all; only what is not the same is told."""
    parts = {line["part"]: line for line in by_part(paired(5, 0.1), policy())}
    assert set(parts) == {"all rows", "origin EWR", "origin JFK"}
    mean = sum(parts[name]["v2"] * parts[name]["rows"] for name in ("origin EWR", "origin JFK")) / 50
    assert parts["all rows"]["v2"] == pytest.approx(mean)
    assert unlike({"rows": 5, "seed": 7}, {"rows": 5, "seed": 9, "params.num_leaves": 31}) == {
        "seed": (7, 9),
        "params.num_leaves": (None, 31),
    }
