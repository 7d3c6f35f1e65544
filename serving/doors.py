"""Every address of the service with the role that it needs; an address that is not here does not exist for callers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.routing import compile_path

from registry.access import Role


@dataclass(frozen=True)
class Door:
    """One address: method, path, the name of what answers, and who may come in.

    `role`: None lets everybody in; `every_model`: what is told there is about all models at once, so that a role for
    some of them is not enough. Where a path or a body names a model, whoever answers looks at `Principal.sees`.
    """

    method: str
    path: str
    answers: str
    role: Role | None
    every_model: bool = False

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that it takes; who may GET may ask for the head alone."""
        return ("GET", "HEAD") if self.method == "GET" else (self.method,)


DOORS = (
    Door("POST", "/v1/{slug}/forecast", "forecast", Role.CALLER),
    Door("POST", "/v1/{slug}/score", "score", Role.CALLER),
    Door("POST", "/v1/outcomes", "outcomes", Role.CALLER),
    Door("GET", "/v1/decisions/{wanted}", "decision", Role.VIEWER),
    Door("GET", "/livez", "live", None),
    Door("GET", "/readyz", "ready", None),
    Door("GET", "/metrics", "metrics", Role.VIEWER, every_model=True),
    Door("GET", "/openapi.json", "schema", None),
)
# What BentoML answers by itself beside our app: health, and pages that show the shape of the API, not what it holds.
BENTOML_DOORS = (
    Door("GET", "/healthz", "bentoml", None),
    Door("GET", "/schema.json", "bentoml", None),
    Door("GET", "/docs.json", "bentoml", None),
    Door("GET", "/static_content/{path:path}", "bentoml", None),
    Door("GET", "/", "bentoml", None),
)


class Doors:
    """Finds the door of a request."""

    def __init__(self, doors: Sequence[Door]) -> None:
        self._plain: dict[str, list[Door]] = {}
        self._patterns: list[tuple[re.Pattern[str], Door]] = []
        for door in doors:
            if "{" in door.path:
                self._patterns.append((compile_path(door.path)[0], door))
            else:
                self._plain.setdefault(door.path, []).append(door)

    def at(self, path: str) -> list[Door]:
        """The doors at a path, one for each method; none where there is no address."""
        plain = self._plain.get(path)
        return plain if plain is not None else [door for pattern, door in self._patterns if pattern.match(path)]
