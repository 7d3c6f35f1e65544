"""Long work that a kill interrupted: at which moment it was begun, and what of it is already done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from contracts.canonical import content_hash
from contracts.errors import DependencyDown, SeatrialError
from contracts.policy import Policy
from contracts.times import iso, parse_time
from lifecycle.progress import Progress
from lifecycle.workspace import Workspace

if TYPE_CHECKING:
    from models.kept_fits import KeptFits

# A day later the world is another one: what was begun then is begun anew.
STILL_GOOD = timedelta(days=1)
KEY_DIGITS = 20


def work_folder(ws: Workspace, policy: Policy) -> Path:
    """Where the unfinished work of a model lies."""
    return ws.settings.home / "work" / policy.model


@contextmanager
def begun(
    ws: Workspace, policy: Policy, what: str, wish: dict[str, Any], *, anew: bool = False, lasting: bool = False
) -> Iterator[datetime]:
    """The moment for which to work: that of the same work when it was interrupted, else now.

    So a run that goes on sees the same events as the one that was killed. It is forgotten when the work ends, well or
    with an error of its own; a kill, a signal or a dependency that is down leave it for the next run.

    Args:
        what: train, backtest or tune. wish: everything that was asked for; another wish begins anew.
        anew: forget what was begun.
        lasting: remember it for a day even when it ended well: a search that is asked for more goes on.
    """
    from models.kept_fits import sweep

    folder = work_folder(ws, policy)
    sweep(folder)
    path = folder / f"{what}.begun.json"
    wish = wish | {"policy": policy.hash, "features": ws.features_hash(policy), "code": ws.revision}
    moment = None if anew else _same(path, wish, ws.clock.now())
    if moment is None:
        moment = ws.clock.now()
        _note(path, {"now": iso(moment), "wish": wish})
    try:
        yield moment
    except DependencyDown:
        raise
    except SeatrialError:
        path.unlink(missing_ok=True)
        raise
    if not lasting:
        path.unlink(missing_ok=True)


def _same(path: Path, wish: dict[str, Any], now: datetime) -> datetime | None:
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
        moment = parse_time(noted["now"], str(path))
        same = noted["wish"] == json.loads(json.dumps(wish))
    except (OSError, ValueError, KeyError, TypeError, SeatrialError):
        return None
    return moment if same and timedelta(0) <= now - moment <= STILL_GOOD else None


def _note(path: Path, value: dict[str, Any]) -> None:
    from registry.durable import replace_file

    replace_file(path, json.dumps(value, indent=2, sort_keys=True).encode())


def training_key(
    ws: Workspace, policy: Policy, rows: pd.DataFrame, now: datetime, params: dict[str, Any] | None, seed: int | None
) -> str:
    """Names one training: from rows, policy, features, code, moment, parameters, seed and champion."""
    from models.artifact_format import FORMAT
    from models.training import dataset_hash

    return content_hash(
        {
            "rows": dataset_hash(rows),
            "policy": policy.hash,
            "features": ws.features_hash(policy),
            "code": ws.revision,
            "format": FORMAT,
            "now": iso(now),
            "params": dict(params or {}),
            "seed": seed,
            "champion": ws.registrar.state(policy.model).champion,
        }
    )[:KEY_DIGITS]


def kept_fits(ws: Workspace, policy: Policy, key: str, progress: Progress) -> KeptFits:
    """The fits that a training of this key has finished so far."""
    from models.kept_fits import KeptFits

    folder = work_folder(ws, policy)
    folder.mkdir(parents=True, exist_ok=True)
    return KeptFits(folder / key, progress)
