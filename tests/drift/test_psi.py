"""PSI by Evidently against our own, and its false alarms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from drift import psi as own
from drift.evidently_report import measure, render
from drift.psi import Bins, assign, count, make_bins, natural_psi, psi, psi_noise


def frames(shift: float = 0.0, seed: int = 3, rows: int = 1500) -> tuple[pd.DataFrame, pd.DataFrame]:
    draw = np.random.default_rng(seed)

    def one(n: int, move: float) -> pd.DataFrame:
        skewed = draw.lognormal(move, 1.0, n)
        skewed[draw.random(n) < 0.1] = np.nan
        return pd.DataFrame(
            {
                "skewed": skewed,
                "few": draw.integers(0, 4, n).astype(float),
                "name": draw.choice(["UA", "DL", None], n, p=[0.5, 0.4, 0.1]),
            }
        )

    return one(2000, 0.0), one(rows, shift)


def oracle(reference: np.ndarray, current: np.ndarray) -> float:
    """PSI written from its definition, with deciles by sorting."""
    known = np.sort(reference[~np.isnan(reference)])
    edges = [np.quantile(known, k / 10) for k in range(1, 10)]
    total = 0.0
    for low, high in zip([-np.inf, *edges], [*edges, np.inf], strict=True):
        p, q = (float(np.mean((x >= low) & (x < high))) or 1e-4 for x in (reference, current))
        total += (p - q) * np.log(p / q)
    p, q = (float(np.mean(np.isnan(x))) or 1e-4 for x in (reference, current))
    return total + (p - q) * np.log(p / q)


@pytest.mark.parametrize("shift", [0.0, 0.5, 9.0])
def test_evidently_gives_what_the_definition_gives(shift: float) -> None:
    """Evidently's psi over our bins equals an independent PSI, and our own, to the last digits."""
    reference, current = frames(shift)
    found = measure(reference, current, ["skewed", "few", "name"])
    wanted = oracle(reference["skewed"].to_numpy(), current["skewed"].to_numpy())
    assert found["skewed"] == pytest.approx(wanted, rel=1e-9)
    assert own.measure(reference, current, ["skewed", "few", "name", "never"]) == pytest.approx(found, rel=1e-9)


def test_unusable_columns_are_left_out_and_the_rest_is_measured() -> None:
    """An all-null, a dropped and an unknown column do not bring the report down; a constant one has PSI zero."""
    reference, current = frames()
    reference, current = reference.assign(flat=5.0, gone=1.0, empty=1.0), current.assign(flat=5.0, empty=np.nan)
    found = measure(reference, current, ["skewed", "flat", "gone", "empty", "never"])
    assert set(found) == {"skewed", "flat"}
    assert found["flat"] == 0.0
    assert measure(reference, current, ["gone"]) == {}


def test_bins_hold_every_value_once() -> None:
    """Every value has a place: unseen categories are other, NaN is missing, wrong types are missing."""
    bins = make_bins(pd.Series(["a", "b", "a", None]))
    assert [bins.labels[k] for k in assign(bins, pd.Series(["a", "z", None]))] == ["a", "other", "missing"]
    tens = make_bins(pd.Series(np.arange(1000.0)))
    assert len(tens) == 11
    assert count(tens, pd.Series([-1e9, 1e9, np.nan, np.inf])).sum() == 4
    assert len(make_bins(pd.Series([np.nan, np.nan]))) == 2
    assert Bins(names=("1.0",)).labels == ("1.0", "other", "missing")


def test_noise_bound_keeps_its_false_alarm_rate() -> None:
    """PSI of two samples of one population passes the bound about as often as stated."""
    draw = np.random.default_rng(5)
    bound = psi_noise(10, 2000, 300, 0.05)
    shares = np.full(10, 0.1)
    over = [psi(draw.multinomial(2000, shares), draw.multinomial(300, shares)) > bound for _ in range(2000)]
    assert 0.03 < np.mean(over) < 0.07
    assert psi_noise(10, 0, 300, 0.05) == float("inf")


def test_natural_psi_knows_a_swinging_column() -> None:
    """A column with a level of its own each week swings, independent draws hardly; two windows say nothing."""
    draw = np.random.default_rng(6)
    weeks = np.repeat(np.arange(8), 400)
    steady, swinging = draw.normal(size=3200), draw.normal(size=3200) + weeks % 4
    assert (natural_psi(pd.Series(steady), weeks, 300) or 0) < 0.1
    assert (natural_psi(pd.Series(swinging), weeks, 300) or 0) > 0.5
    assert natural_psi(pd.Series(steady), weeks > 3, 300) is None


def test_html_renders_and_says_so_when_nothing_can_be_compared(tmp_path: Path) -> None:
    """The report is one HTML file with the comparable columns; without any it says not enough data."""
    reference, current = frames(0.5)
    path = tmp_path / "reports" / "drift.html"
    assert render(reference, current.assign(empty=np.nan), ["skewed", "name", "empty"], path) == ("skewed", "name")
    text = path.read_text(encoding="utf-8")
    assert "<html" in text.lower()
    assert "skewed" in text
    assert render(reference, current, ["never"], path) == ()
    assert "Not enough data" in path.read_text(encoding="utf-8")
