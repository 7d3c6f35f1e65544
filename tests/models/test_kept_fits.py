"""Fits that an interrupted training left: read back to the last bit, and made again when they are not whole."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from contracts.declarations import Declarations
from contracts.policy import Policy
from models.backtest import fold_model, policy_folds
from models.kept_fits import KeptFits, sweep
from models.training import train

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("kind", ["forecast", "risk"])
def test_a_training_on_kept_fits_writes_the_same_bytes(
    kind: str, declarations: Declarations, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Nothing kept, some fits kept, all kept: every file is the same, and what is kept is not fitted again."""
    name = {"forecast": "demand", "risk": "risk"}[kind]
    policy: Policy = request.getfixturevalue(f"{name}_policy")
    rows: pd.DataFrame = request.getfixturevalue(name)
    plain = train(policy, rows, declarations, now=NOW, out=tmp_path / "plain")
    told: list[str] = []
    keep = KeptFits(tmp_path / "kept", lambda words, _: told.append(words))
    first = train(policy, rows, declarations, now=NOW, out=tmp_path / "first", keep=keep)
    names = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert (len(names), names[0], keep.kept, told) == (3, "final", [], [])
    second = train(policy, rows, declarations, now=NOW, out=tmp_path / "second", keep=keep)
    assert sorted(keep.kept) == names
    assert sorted(told) == [f"{one} kept" for one in names]
    assert files(first.folder) == files(plain.folder) == files(second.folder)


@pytest.fixture
def one(risk_policy: Policy, risk: pd.DataFrame, declarations: Declarations) -> Any:
    """A fit that counts how often it is made."""
    fold = policy_folds(risk_policy, risk, NOW)[0]

    class Counted:
        made = 0

        def __call__(self) -> Any:
            self.made += 1
            return fold_model(risk_policy, risk, declarations, fold)

    return Counted()


@pytest.mark.parametrize("harm", ["cut", "changed", "missing", "unfinished", "no sums"])
def test_what_is_not_whole_is_made_again(one: Any, tmp_path: Path, harm: str) -> None:
    """A file cut, changed, gone, a folder that a kill left unnamed, no sums: fitted anew, then kept."""
    keep = KeptFits(tmp_path / "work")
    keep("fold", one)
    place = tmp_path / "work" / "fold"
    whole = files(place)
    if harm == "cut":
        (place / "trees.txt").write_bytes(whole["trees.txt"][:-40])
    elif harm == "changed":
        (place / "linear.json").write_bytes(whole["linear.json"].replace(b"intercept", b"Intercept"))
    elif harm == "missing":
        (place / "spec.json").unlink()
    elif harm == "unfinished":
        place.rename(place.with_name(".fold.123"))
    else:
        (place / "sums.json").write_text("{}")
    keep("fold", one)
    assert (one.made, keep.kept) == (2, [])
    assert files(place) == whole
    keep("fold", one)
    assert (one.made, keep.kept) == (2, ["fold"])


def test_old_leftovers_are_swept_and_young_ones_are_not(tmp_path: Path) -> None:
    """By the newest thing in a folder; a folder that is not there is no fault."""
    for name, days in (("old", 9), ("young", 1)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trees.txt").write_text("tree")
        then = time.time() - timedelta(days=days).total_seconds()
        for path in (tmp_path / name / "trees.txt", tmp_path / name):
            os.utime(path, (then, then))
    assert sweep(tmp_path) == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["young"]
    assert sweep(tmp_path / "nowhere") == []
