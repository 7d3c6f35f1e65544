"""The objects that `feast apply` registers: all of them come from features.yaml beside this file."""

from __future__ import annotations

from pathlib import Path

from contracts.declarations import load_declarations
from contracts.settings import Settings
from features.feast_store import feast_objects

_objects = feast_objects(load_declarations(Path(__file__).parent), Settings().lake / "gold")
# Feast finds objects by looking at the names of this module
globals().update({f"{type(item).__name__}_{item.name}": item for item in _objects})
