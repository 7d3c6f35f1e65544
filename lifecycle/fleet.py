"""Sails the voyages of a rehearsal side by side, a process each, as far as there are cores."""

from __future__ import annotations

import os
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from queue import Empty
from typing import Any

from contracts.rehearsal import Rehearsal, Voyage
from contracts.settings import Settings
from contracts.times import SetClock
from lifecycle.demo_results import Voyaged
from lifecycle.progress import Progress
from lifecycle.terminal import no_vendor_warnings
from lifecycle.voyage import sail
from lifecycle.workspace import Workspace

_POLL_S = 0.2
_told: Any = None


def sail_all(settings: Settings, rehearsal: Rehearsal, folder: Path, progress: Progress) -> list[Voyaged]:
    """Every voyage's end, in the rehearsal's order.

    Voyages share one workspace (ledger, MLflow, stores take several processes) but no event, view or model, so that
    each comes out the same whether it sails alone or beside others.

    Args:
        settings: of the workspace.
        rehearsal: what to sail.
        folder: where the rehearsal's mappings are.
        progress: told (model: stage, share of the stage done).

    Raises:
        whatever a voyage raised; the others are ended first.
    """
    workers = min(len(rehearsal.voyages), os.cpu_count() or 1)
    if workers == 1:
        return [_one(settings, voyage, rehearsal, folder, progress) for voyage in rehearsal.voyages]
    context = get_context("spawn")
    told = context.Queue()
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_in_worker, initargs=(told,)) as pool:
        futures = [pool.submit(_beside, settings, voyage, rehearsal, folder) for voyage in rehearsal.voyages]
        _listen(told, futures, progress)
        return [future.result() for future in futures]


def _listen(told: Any, futures: list[Future[Voyaged]], progress: Progress) -> None:
    while not all(future.done() for future in futures):
        if any(future.done() and future.exception() for future in futures):
            for future in futures:
                future.cancel()
        try:
            progress(*told.get(timeout=_POLL_S))
        except Empty:
            continue


def _in_worker(told: Any) -> None:
    global _told
    _told = told
    no_vendor_warnings()
    # One core a voyage: more threads than cores make every fit slower.
    os.environ.setdefault("SEATRIAL_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def _beside(settings: Settings, voyage: Voyage, rehearsal: Rehearsal, folder: Path) -> Voyaged:
    return _one(settings, voyage, rehearsal, folder, lambda stage, share: _told.put((stage, share)))


def _one(settings: Settings, voyage: Voyage, rehearsal: Rehearsal, folder: Path, progress: Progress) -> Voyaged:
    clock = SetClock(voyage.learn_until)
    with Workspace(settings, clock, durable=False).closing() as ws:
        return sail(
            ws, clock, voyage, rehearsal, folder, lambda stage, share: progress(f"{voyage.model}: {stage}", share)
        )
