"""Reading a model back from its folder of plain files; whoever calls this has verified the files before."""

from __future__ import annotations

import json
from pathlib import Path

from contracts.errors import ArtifactRefused
from models.forecaster import ForecastModel
from models.risk import RiskModel

SPEC_FORMAT = 1
LOADERS: dict[str, type[ForecastModel] | type[RiskModel]] = {"forecast": ForecastModel, "risk": RiskModel}


def load_model(folder: Path) -> ForecastModel | RiskModel:
    """The model in `folder`, of whichever kind its spec.json names. Predicts to the last bit like the one saved.

    Raises:
        ArtifactRefused: spec.json is missing, of another format, or names an unknown kind.
    """
    path = folder / "spec.json"
    try:
        head = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactRefused(folder.name, f"spec.json cannot be read: {error}") from None
    if not isinstance(head, dict) or head.get("format") != SPEC_FORMAT:
        raise ArtifactRefused(folder.name, f"spec.json: wanted format {SPEC_FORMAT}")
    if head.get("kind") not in LOADERS:
        raise ArtifactRefused(folder.name, f"spec.json: wanted kind forecast or risk, got {head.get('kind')!r}")
    return LOADERS[head["kind"]].load(folder)
