"""A training in a process of its own: `python training_task.py KIND FOLDER` prints the sealed manifest's hash."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def made_up() -> Any:
    """The tests' own rows, by the file's path: outside of pytest the name `tests` may be an installed package."""
    place = importlib.util.spec_from_file_location("made_up_rows", Path(__file__).with_name("conftest.py"))
    assert place
    assert place.loader
    rows = importlib.util.module_from_spec(place)
    place.loader.exec_module(rows)
    return rows


def main(kind: str, folder: Path) -> None:
    """Train with the policy's seed on the tests' own rows."""
    from contracts.declarations import load_declarations
    from contracts.policy import load_policy
    from models.training import train
    from registry.artifacts import seal

    made = made_up()
    name = {"forecast": "demand", "risk": "late_delivery"}[kind]
    rows = made.demand_rows() if kind == "forecast" else made.risk_rows(n=3000)
    policy = made.quick(load_policy(ROOT / "policies" / f"{name}.yaml"))
    train(policy, rows, load_declarations(ROOT / "features" / "repo"), now=made.NOW, out=folder)
    sys.stdout.write(seal(folder, {"model": name}))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(sys.argv[1], Path(sys.argv[2]))
