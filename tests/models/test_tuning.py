"""Tuning: what one worker finds, what a killed worker leaves, what is too slow; Optuna's own storage on disk."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from contracts.declarations import Declarations
from contracts.errors import CheckFailed, DependencyDown
from contracts.policy import Policy
from models.optuna_search import LATENCY, WORKER, defaults, tune
from tests.models.tuning_task import task

NOW = datetime(2026, 6, 1, tzinfo=UTC)
TASK = Path(__file__).with_name("tuning_task.py")
FEW_S = 0.05


def started(storage: str, *, trials: int, workers: int) -> subprocess.Popen[str]:
    """A tuning in a process of its own."""
    words = [sys.executable, str(TASK), storage, str(trials), str(workers)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "SEATRIAL_THREADS": "1"}
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def study_of(storage: str) -> Any:
    """The only study in a storage, None while there is none; makes no table, as whoever tunes may be making them."""
    path = Path(storage.removeprefix("sqlite:///"))
    if not path.exists():
        return None
    with closing(sqlite3.connect(path)) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'trial_heartbeats'").fetchall():
            return None
    opened = optuna.storages.RDBStorage(storage, skip_table_creation=True, skip_compatibility_check=True)
    names = optuna.get_all_study_names(opened)
    return optuna.load_study(study_name=names[0], storage=opened) if names else None


def running_pid(process: subprocess.Popen[str], storage: str, after: int) -> int:
    """The process that works on a trial, once `after` others have ended."""
    while process.poll() is None:
        study = study_of(storage)
        trials = study.get_trials(deepcopy=False) if study else []
        ended = sum(trial.state.is_finished() for trial in trials)
        for trial in trials:
            if ended >= after and trial.state is TrialState.RUNNING and len(trial.params) == 6:
                return int(trial.user_attrs[WORKER].rpartition(":")[2])
        time.sleep(FEW_S)
    raise AssertionError(process.communicate()[1])


def points(storage: str) -> list[dict[str, float]]:
    """Parameters of the trials that ended with a result, in order."""
    kept = (TrialState.COMPLETE, TrialState.PRUNED)
    return [trial.params for trial in study_of(storage).get_trials(states=kept)]


def test_tuning_resumes_where_it_stopped(
    risk_policy: Policy, declarations: Declarations, risk: pd.DataFrame, tmp_path: Path
) -> None:
    """Four trials in two calls are the four trials of one call, the shipped values first; asking again runs none."""
    seen: list[str] = []
    plan: dict[str, Any] = {"now": NOW, "alone": True}
    twice, once = (f"sqlite:///{tmp_path / name}.db" for name in ("twice", "once"))
    told = {"progress": lambda words, _: seen.append(words)}
    tune(risk_policy, risk, declarations, trials=2, storage=twice, **plan, **told)
    best = tune(risk_policy, risk, declarations, trials=4, storage=twice, **plan, **told)
    assert tune(risk_policy, risk, declarations, trials=4, storage=twice, **plan, **told).params == best.params
    assert seen == [f"trial {i} of {n}" for i, n in ((1, 2), (2, 2), (3, 4), (4, 4))]
    whole = tune(risk_policy, risk, declarations, trials=4, storage=once, **plan)
    assert (whole.params, whole.loss, points(once)) == (best.params, best.loss, points(twice))
    assert points(once)[0] == pytest.approx(defaults("risk"))
    assert best.shipped_loss is not None
    assert best.loss <= best.shipped_loss


@pytest.mark.slow
def test_a_killed_workers_trial_is_failed_and_tried_again_by_another(tmp_path: Path) -> None:
    """Two workers on one storage, one is killed in the middle of a trial: the other takes its trial over."""
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    process = started(storage, trials=4, workers=2)
    victim = running_pid(process, storage, after=1)
    os.kill(victim, signal.SIGKILL)
    errors = process.communicate(timeout=240)[1]
    assert process.returncode == 0, errors
    trials = study_of(storage).get_trials()
    lost = [trial for trial in trials if trial.state is TrialState.FAIL]
    assert len(lost) == 1
    again = [trial for trial in trials if trial.system_attrs.get("failed_trial") == lost[0].number]
    assert [trial.params for trial in again] == [lost[0].params]
    assert again[0].state in (TrialState.COMPLETE, TrialState.PRUNED)
    assert int(lost[0].user_attrs[WORKER].rpartition(":")[2]) == victim
    assert again[0].user_attrs[WORKER] != lost[0].user_attrs[WORKER]
    assert len(points(storage)) >= 4


@pytest.mark.slow
def test_a_search_that_was_killed_ends_like_one_that_was_not(tmp_path: Path) -> None:
    """One worker alone is killed in a trial: the next run does that trial again, and the same points as ever."""
    cut, whole = (f"sqlite:///{tmp_path / name}.db" for name in ("cut", "whole"))
    process = started(cut, trials=3, workers=1)
    os.kill(running_pid(process, cut, after=1), signal.SIGKILL)
    process.communicate()
    found = [tune(**task(storage, trials=3, workers=1)) for storage in (cut, whole)]
    assert (found[0].params, found[0].loss) == (found[1].params, found[1].loss)
    assert found[0].trials["fail"] == 1
    assert "fail" not in found[1].trials
    assert points(cut) == points(whole)


def test_what_answers_too_slowly_is_not_chosen(
    risk_policy: Policy, declarations: Declarations, risk: pd.DataFrame, tmp_path: Path
) -> None:
    """No trial keeps a budget of a nanosecond, and that is said; a budget of a second changes nothing."""
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    plan: dict[str, Any] = {"storage": storage, "now": NOW, "trials": 2}
    with pytest.raises(CheckFailed, match="within 1e-06 ms"):
        tune(risk_policy, risk, declarations, max_predict_ms=1e-6, **plan)
    states = [trial.state for trial in study_of(storage).get_trials()]
    assert states == [TrialState.PRUNED] * 2
    wide = f"sqlite:///{tmp_path / 'wide.db'}"
    found = tune(risk_policy, risk, declarations, max_predict_ms=1000, **(plan | {"storage": wide}))
    assert 0 < found.predict_ms < 1000
    assert all(trial.constraints == {LATENCY: 0.0} for trial in study_of(wide).get_trials())


def test_a_storage_that_does_not_answer_is_said(
    risk_policy: Policy, declarations: Declarations, risk: pd.DataFrame, tmp_path: Path
) -> None:
    """Not a traceback of somebody else's library."""
    with pytest.raises(DependencyDown, match="Optuna's storage"):
        tune(risk_policy, risk, declarations, trials=1, storage=f"sqlite:///{tmp_path}/no/folder/x.db", now=NOW)
