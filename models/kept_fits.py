"""Fits of a training that has not ended yet, kept as plain files so that the next run need not do them again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from contracts.errors import SeatrialError
from models.forecaster import ForecastModel
from models.load import load_model
from models.risk import RiskModel

Model = ForecastModel | RiskModel
Progress = Callable[[str, float], None]
SUMS = "sums.json"
MAX_AGE = timedelta(days=3)


class Keep(Protocol):
    """Where the fits of a training may be kept."""

    def has(self, name: str) -> bool:
        """Whether the fit of this name need not be made."""
        ...

    def __call__(self, name: str, fit: Callable[[], Model]) -> Model:
        """The fit of this name, made by `fit` when it is not there."""
        ...


class FitNow:
    """Keeps nothing: fits."""

    def has(self, name: str) -> bool:
        """False always."""
        return False

    def __call__(self, name: str, fit: Callable[[], Model]) -> Model:
        """What `fit` makes."""
        return fit()


fit_now = FitNow()


class KeptFits:
    """The fits of one training in a scratch folder; call it with a fit's name and how to make it.

    A fit is written beside its place and moved there whole, with the SHA-256 of every file: what a kill left half
    written, or what was changed since, is made again. A model that was read back answers to the last bit like the one
    that was written, so a training that goes on ends in the same bytes as one that was never stopped.

    Args:
        folder: of this training alone; its name must say everything that the fits depend on.
        progress: told `name: kept` when a fit need not be made.
    """

    def __init__(self, folder: Path, progress: Progress | None = None) -> None:
        self.folder, self._progress = folder, progress
        self.kept: list[str] = []

    def has(self, name: str) -> bool:
        """Whether a whole fit of this name is there."""
        return _is_whole(self.folder / name)

    def __call__(self, name: str, fit: Callable[[], Model]) -> Model:
        """The fit of this name, read back when a run before this one finished it."""
        place = self.folder / name
        if _is_whole(place):
            try:
                model = load_model(place)
            except (SeatrialError, OSError, ValueError, KeyError):
                pass
            else:
                self.kept.append(name)
                if self._progress:
                    self._progress(f"{name} kept", 0.0)
                return model
        model = fit()
        self._write(place, model)
        return model

    def remove(self) -> None:
        """Remove the folder: the training has ended."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, place: Path, model: Model) -> None:
        temporary = place.with_name(f".{place.name}.{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        model.save(temporary)
        (temporary / SUMS).write_text(json.dumps(_sums(temporary), sort_keys=True), encoding="utf-8")
        shutil.rmtree(place, ignore_errors=True)
        temporary.rename(place)


def sweep(folder: Path, *, max_age: timedelta = MAX_AGE) -> list[str]:
    """Remove what trainings that nobody went on with left below `folder`, once nothing in it is younger than `max_age`.

    Returns:
        names of the folders that were removed.
    """
    removed = []
    for left in sorted(folder.iterdir()) if folder.is_dir() else []:
        newest = max((path.lstat().st_mtime for path in (left, *left.rglob("*"))), default=0.0)
        if left.is_dir() and time.time() - newest > max_age.total_seconds():
            shutil.rmtree(left, ignore_errors=True)
            removed.append(left.name)
    return removed


def _sums(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.iterdir()) if path.name != SUMS)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _is_whole(place: Path) -> bool:
    try:
        return bool(json.loads((place / SUMS).read_text(encoding="utf-8")) == _sums(place))
    except (OSError, ValueError):
        return False
