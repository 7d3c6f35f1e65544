"""`seatrial schema`: JSON Schemas for editors."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import Annotated

import typer
from pydantic import BaseModel


class Which(StrEnum):
    """What has a schema."""

    policy = "policy"
    features = "features"
    mapping = "mapping"
    rehearsal = "rehearsal"
    environments = "environments"
    events = "events"


def schema(which: Annotated[Which, typer.Argument(help="Kind of file.")]) -> None:
    """Print the JSON Schema of a kind of YAML file."""
    from contracts.declarations import Declarations
    from contracts.environments import Environments
    from contracts.events_out import EventsOut
    from contracts.mapping import EventsFile
    from contracts.policy import Policy
    from contracts.rehearsal import Rehearsal

    kinds: dict[str, type[BaseModel]] = {
        "policy": Policy,
        "features": Declarations,
        "mapping": EventsFile,
        "rehearsal": Rehearsal,
        "environments": Environments,
        "events": EventsOut,
    }
    sys.stdout.write(json.dumps(kinds[which.value].model_json_schema(), indent=2) + "\n")
