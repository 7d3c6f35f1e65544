"""Search for booster parameters by Optuna on backtest loss: seeded, resumable, pruned origin by origin, by any number
of workers on one storage.

Worth little: in trials on 11 real sets tuning moved losses by 0 to 6%. Features, loss and scale come first.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from contracts.declarations import Declarations
from contracts.errors import CheckFailed, DependencyDown
from contracts.policy import Policy
from contracts.times import utc
from models.backtest import fold_model, policy_folds
from models.design import FrameColumns
from models.evaluate import Answers, scoreboard
from models.folds import Fold, matured
from models.forecaster import ForecastModel
from models.risk import RiskModel
from models.training import dataset_hash

Progress = Callable[[str, float], None]
LATENCY, SHIPPED, WORKER = "predict_ms", "shipped", "worker"
REPEATS = 15
STARTUP_TRIALS = 5
LOCK_TIMEOUT_S = 60
LOOK_S = 0.5
OPENINGS = 4
# Apart enough that a worker's seed never meets another's on its way up.
SEEDS_APART = 1_000_003


@dataclass(frozen=True)
class Pulse:
    """How a worker shows that it lives, in seconds; a trial silent for `grace` is taken over by another."""

    beat: int = 10
    grace: int = 60


@dataclass(frozen=True)
class Found:
    """What a study found.

    `params`: overrides for `train(params=...)`; `loss`, `predict_ms`: of the best trial, over the backtest and for one
    decision; `shipped_loss`: of the shipped defaults, None when they were over the budget; `trials`: number by state.
    """

    params: dict[str, Any]
    loss: float
    predict_ms: float
    shipped_loss: float | None
    trials: dict[str, int]
    study: str


@dataclass(frozen=True)
class _Search:
    """Everything that a worker needs; goes to other processes of this machine."""

    policy: Policy
    rows: pd.DataFrame
    declarations: Declarations
    now: datetime
    storage: str
    study: str
    trials: int
    max_predict_ms: float
    alone: bool
    pulse: Pulse


def tune(
    policy: Policy,
    rows: pd.DataFrame,
    declarations: Declarations,
    *,
    trials: int,
    storage: str,
    now: datetime,
    progress: Progress | None = None,
    workers: int = 1,
    max_predict_ms: float | None = None,
    alone: bool = False,
    pulse: Pulse | None = None,
) -> Found:
    """The booster parameters with the least backtest loss among those that answer fast enough.

    One worker alone with one seed finds the same, also when it was stopped between: each trial draws from its own seed,
    made of the policy's and the number of finished trials. The latency of a decision is measured, and a measurement is
    never the same twice; it says nothing to the search while it is within the budget, so only a trial that lies at the
    budget can end otherwise the next time.

    Args:
        policy, rows, declarations: as for `training.train`. now: nothing known later is used.
        trials: how many finished trials the study shall have in all; those of an earlier, interrupted call count.
        storage: SQLAlchemy URL of the study, like sqlite:///tuning.db or postgresql://host/name.
        progress: called with words and the share done in [0, 1].
        workers: processes of this machine; those of other machines join in by calling with the same arguments.
        max_predict_ms: median milliseconds that one decision's rows may take; the policy's 99th percentile when None.
        alone: nobody else works on this study: what still runs in it was killed, and is tried again at once.
        pulse: how workers show that they live; a killed one's trial is failed and tried again by another.

    Returns:
        what was found. The shipped defaults are always the first trial, so they come back when nothing is better.

    Raises:
        NotEnoughData: no backtest origin has enough rows. CheckFailed: no trial was within the budget, or all workers
        died before the trials were done. DependencyDown: the storage does not answer.
    """
    from optuna.exceptions import StorageInternalError

    budget = policy.rollout.guardrails.p99_ms if max_predict_ms is None else max_predict_ms
    moment = utc(now)
    policy_folds(policy, rows, moment)
    name = f"{policy.model}-{dataset_hash(rows[matured(rows, moment)])[:16]}-{policy.hash[:8]}"
    search = _Search(policy, rows, declarations, moment, storage, name, trials, budget, alone, pulse or Pulse())
    study = _study(search)
    try:
        if alone:
            _revive(study)
        if workers == 1:
            _work(search, 0, study, progress)
        elif _counts(study)["finished"] < trials:
            _together(search, workers, study, progress)
        return _found(study, search)
    except StorageInternalError as error:
        raise DependencyDown("Optuna's storage", str(error).splitlines()[0]) from error


def _study(search: _Search) -> Any:
    """The study, made when it is not there. Workers that start at once meet while the tables are made: tried again."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    for attempt in range(1, OPENINGS + 1):
        try:
            return _opened(search)
        except Exception as error:  # Optuna lets through whatever the database's driver raises
            if attempt == OPENINGS:
                why = (str(error).splitlines() or [type(error).__name__])[0]
                raise DependencyDown("Optuna's storage", why) from error
            time.sleep(LOOK_S)
    return None


def _opened(search: _Search) -> Any:
    import optuna
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback

    arguments = {"connect_args": {"timeout": LOCK_TIMEOUT_S}} if search.storage.startswith("sqlite") else {}
    storage = RDBStorage(
        search.storage,
        engine_kwargs=arguments,
        heartbeat_interval=search.pulse.beat,
        grace_period=search.pulse.grace,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
    )
    study = optuna.create_study(
        study_name=search.study,
        storage=storage,
        direction="minimize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
    )
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(defaults(search.policy.kind), {SHIPPED: True}, skip_if_exists=True)
    return study


def _counts(study: Any) -> Counter[str]:
    """Number of trials by state in small letters, and of those that ended with a result as `finished`."""
    found = Counter(trial.state.name.lower() for trial in study.get_trials(deepcopy=False))
    found["finished"] = found["complete"] + found["pruned"]
    return found


def _revive(study: Any) -> None:
    """End every trial that seems to run, and have it tried again."""
    from optuna.storages import RetryHeartbeatStaleTrialCallback
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        RetryHeartbeatStaleTrialCallback()(study, trial)


def _work(search: _Search, worker: int, study: Any = None, progress: Progress | None = None) -> None:
    """One worker: trials until the study has enough, taking over those of workers that fell silent."""
    import optuna

    study = study or _study(search)
    parent, patience = os.getppid(), 0.0
    while os.getppid() == parent:
        optuna.storages.fail_stale_trials(study)
        count = _counts(study)
        if count["finished"] >= search.trials:
            return
        others = count["finished"] + count["running"] >= search.trials and not count["waiting"]
        if others and patience < 2 * search.pulse.grace:
            # The last trials run elsewhere; one of them may yet fall silent. Beyond that, one too many is no harm.
            time.sleep(search.pulse.beat / 2)
            patience += search.pulse.beat / 2
            continue
        patience = 0.0
        drawn = count["finished"] if search.alone else len(study.get_trials(deepcopy=False))
        seed = search.policy.training.seed + SEEDS_APART * worker + drawn
        study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
        study.optimize(partial(_objective, search), n_trials=1)
        _tell(study, search, progress)


def _tell(study: Any, search: _Search, progress: Progress | None) -> None:
    done = _counts(study)["finished"]
    if progress and done:
        progress(f"trial {min(done, search.trials)} of {search.trials}", min(done / search.trials, 1.0))


def _together(search: _Search, workers: int, study: Any, progress: Progress | None) -> None:
    """Several workers, a process each; they end by themselves when the study has enough trials."""
    context = multiprocessing.get_context("spawn")
    running = [context.Process(target=_work, args=(search, number), daemon=True) for number in range(workers)]
    for process in running:
        process.start()
    told = -1
    while any(process.is_alive() for process in running):
        for process in running:
            process.join(LOOK_S / workers)
        done = _counts(study)["finished"]
        if done != told:
            _tell(study, search, progress)
            told = done
    done = _counts(study)["finished"]
    if done < search.trials:
        codes = ", ".join(str(process.exitcode) for process in running)
        raise CheckFailed(
            f"tuning {search.policy.model}: {done} of {search.trials} trials are done and no worker is left "
            f"(they ended with {codes}); run it again to go on"
        )


def _objective(search: _Search, trial: Any) -> float:
    """Mean gate loss over the origins, newest last; ends early when it is too slow or worse than most."""
    import optuna

    trial.set_user_attr(WORKER, f"{platform.node()}:{os.getpid()}")
    params, losses = suggested(trial), []
    for number, fold in enumerate(policy_folds(search.policy, search.rows, search.now)):
        model = fold_model(search.policy, search.rows, search.declarations, fold, params)
        if number == 0:
            took = predict_ms(model, search.rows.iloc[fold.score[: search.policy.horizon or 1]])
            trial.set_user_attr(LATENCY, took)
            trial.set_constraint(LATENCY, max(took - search.max_predict_ms, 0.0))
            if took > search.max_predict_ms:
                raise optuna.TrialPruned
        losses.append(_fold_loss(search, model, fold))
        trial.report(float(np.mean(losses)), number)
        if trial.should_prune():
            raise optuna.TrialPruned
    return float(np.mean(losses))


def predict_ms(model: ForecastModel | RiskModel, rows: pd.DataFrame) -> float:
    """Median milliseconds in which the model answers these rows, given as serving gives them."""
    columns = {name: rows[name].to_numpy() for name in model.columns}
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        model.predict(columns)
        times.append(time.perf_counter() - begun)
    return 1000 * float(np.median(times))


def _fold_loss(search: _Search, model: ForecastModel | RiskModel, fold: Fold) -> float:
    """Mean gate loss of one origin, before corrections."""
    scored = search.rows.iloc[fold.score]
    columns = FrameColumns(scored)
    if isinstance(model, ForecastModel):
        answers = Answers(*model.predict(columns))
    else:
        answers = Answers(model.predict(columns), np.empty((len(scored), 0)))
    losses = scoreboard(search.policy, search.declarations, scored).losses(answers)
    return float(np.nanmean(losses))


def _found(study: Any, search: _Search) -> Found:
    count = _counts(study)
    try:
        best = study.best_trial
    except ValueError:
        seen = [trial.user_attrs[LATENCY] for trial in study.get_trials() if LATENCY in trial.user_attrs]
        least = f"the fastest took {min(seen):.3g} ms" if seen else "none was measured"
        raise CheckFailed(
            f"tuning {search.policy.model}: no trial answers a decision within {search.max_predict_ms:g} ms ({least})"
        ) from None
    first = next((trial for trial in study.get_trials() if trial.values and SHIPPED in trial.user_attrs), None)
    return Found(
        params=dict(best.params),
        loss=float(best.value),
        predict_ms=float(best.user_attrs[LATENCY]),
        shipped_loss=float(first.value) if first else None,
        trials={name: count[name] for name in ("complete", "pruned", "fail", "running", "waiting") if count[name]},
        study=search.study,
    )


def defaults(kind: str) -> dict[str, Any]:
    """The shipped values of the parameters that are searched."""
    from models import boosters

    shipped = boosters.MEAN if kind == "forecast" else boosters.RISK
    return {name: shipped[name] for name in boosters.TUNABLE}


def suggested(trial: Any) -> dict[str, Any]:
    """One point of the search space."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.15, log=True),
        "num_leaves": trial.suggest_int("num_leaves", 7, 127, log=True),
        "min_data_in_leaf": trial.suggest_int("min_data_in_leaf", 10, 400, log=True),
        "feature_fraction": trial.suggest_float("feature_fraction", 0.3, 1.0),
        "bagging_fraction": trial.suggest_float("bagging_fraction", 0.5, 1.0),
        "lambda_l2": trial.suggest_float("lambda_l2", 0.1, 50.0, log=True),
    }
