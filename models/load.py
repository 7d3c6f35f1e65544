"""Reading a model back from its folder of plain files; whoever calls this has verified the files before."""

from __future__ import annotations

import json
from pathlib import Path

from contracts.errors import ArtifactRefused
from models.artifact_format import FORMAT, READS
from models.forecaster import ForecastModel
from models.risk import RiskModel

LOADERS: dict[str, type[ForecastModel] | type[RiskModel]] = {"forecast": ForecastModel, "risk": RiskModel}


def load_model(folder: Path) -> ForecastModel | RiskModel:
    """The model in `folder`, of whichever kind its spec.json names. Predicts to the last bit like the one saved.

    Raises:
        ArtifactRefused: spec.json is missing, of a format that this version does not read, or names an unknown kind; or
        the other files do not make the model that it describes.
    """
    path = folder / "spec.json"
    try:
        head = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactRefused(folder.name, f"spec.json cannot be read: {error}") from None
    found = head.get("format") if isinstance(head, dict) else None
    if found not in READS or isinstance(found, bool):
        newer = isinstance(found, int) and found > FORMAT
        hint = "a newer Seatrial wrote it: upgrade this one" if newer else "train the model again"
        wanted = " or ".join(str(number) for number in READS)
        raise ArtifactRefused(folder.name, f"spec.json: wanted format {wanted}, got {found!r} ({hint})")
    if head.get("kind") not in LOADERS:
        raise ArtifactRefused(folder.name, f"spec.json: wanted kind forecast or risk, got {head.get('kind')!r}")
    try:
        return LOADERS[head["kind"]].load(folder)
    except Exception as error:  # a file that is missing, no JSON, of other fields, or that LightGBM cannot read
        raise ArtifactRefused(folder.name, f"not a whole model: {str(error).splitlines()[0]}") from error
