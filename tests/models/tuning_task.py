"""A tuning in a process of its own, for tests that kill one: `python tuning_task.py STORAGE TRIALS WORKERS`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 250


def task(storage: str, trials: int, workers: int) -> dict[str, Any]:
    """The arguments of `tune`: few made-up shipments, two origins, fits of about half a second."""
    from contracts.declarations import load_declarations
    from contracts.policy import load_policy
    from models.optuna_search import Pulse

    # By its file: outside of pytest the name `tests` may be somebody else's installed package.
    place = importlib.util.spec_from_file_location("made_up_rows", Path(__file__).with_name("conftest.py"))
    assert place
    assert place.loader
    rows = importlib.util.module_from_spec(place)
    place.loader.exec_module(rows)
    policy = rows.quick(load_policy(ROOT / "policies" / "late_delivery.yaml"))
    policy = policy.model_copy(update={"training": policy.training.model_copy(update={"rounds": ROUNDS})})
    return {
        "policy": policy,
        "rows": rows.risk_rows(n=2000),
        "declarations": load_declarations(ROOT / "features" / "repo"),
        "now": rows.NOW,
        "storage": storage,
        "trials": trials,
        "workers": workers,
        "alone": workers == 1,
        "pulse": Pulse(beat=1, grace=3),
    }


def main() -> None:
    """Tune as the arguments say."""
    from models.optuna_search import tune

    tune(**task(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
