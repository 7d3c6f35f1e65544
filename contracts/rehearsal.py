"""A rehearsal: which history is replayed through the loop, for which models, from when to when."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from contracts.policy import Name
from contracts.times import Duration, parse_duration, parse_time
from contracts.yaml_file import Strict, load_strict


def _moment(value: object) -> object:
    return parse_time(str(value)) if not isinstance(value, datetime) else value


Moment = Annotated[datetime, BeforeValidator(_moment)]


class Voyage(Strict):
    """One model's replay.

    `mapping`: mapping file beside the rehearsal file; `package`: an installed package that carries the data, `folder`
    inside it (or `path`, a folder or file of one's own). History before `learn_until` teaches the first candidate;
    decisions are made from then to `live_until`. Events land and features are materialised every `tick`.
    `per_day`: about how many shipments a day are scored (a fixed pseudo-random choice); `ask_every`: each series is
    forecast once in so many days.
    """

    model: Name
    mapping: str
    package: str | None = None
    folder: str = "data"
    path: Path | None = None
    learn_until: Moment
    live_until: Moment
    tick: Duration = parse_duration("1d")
    per_day: Annotated[int, Field(ge=1)] = 40
    ask_every: Annotated[int, Field(ge=1, le=28)] = 7

    @model_validator(mode="after")
    def _sound(self) -> Voyage:
        if (self.package is None) == (self.path is None):
            raise ValueError("exactly one of package and path")
        if self.learn_until >= self.live_until:
            raise ValueError("learn_until before live_until")
        return self


class Rehearsal(Strict):
    """Voyages in order of time, and how much is checked at the end."""

    title: str
    voyages: tuple[Voyage, ...] = Field(min_length=1)
    replays: Annotated[int, Field(ge=1)] = 200
    http_requests: Annotated[int, Field(ge=1, le=200)] = 10


def load_rehearsal(path: Path) -> Rehearsal:
    """The rehearsal file as an object.

    Raises:
        ConfigInvalid: with file, line, key, what was wanted, what came and the nearest valid key.
    """
    return load_strict(path, Rehearsal)
