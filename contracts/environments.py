"""Environments: the workspaces that a model passes through on its way, like dev, staging and prod."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from contracts.errors import ConfigInvalid, InputInvalid, UnknownName
from contracts.policy import Name
from contracts.settings import Settings
from contracts.yaml_file import Strict, load_strict

Reached = Literal["gated", "champion"]


class Environment(Strict):
    """One workspace and the addresses around it.

    `requires`: what a version must have reached in the environment before, to be carried here: a passing gate, or to
    have been champion. `ledger_url_from`, `tracking_uri_from`, `online_url_from`: names of environment variables that
    hold the address, so that no password stands in the file.
    """

    name: Name
    home: Path
    policies: Path = Path("policies")
    features: Path = Path("features/repo")
    ledger_url: str = ""
    ledger_url_from: str = ""
    tracking_uri: str = ""
    tracking_uri_from: str = ""
    online_url: str = ""
    online_url_from: str = ""
    anchors: str = ""
    requires: Reached = "gated"

    @model_validator(mode="after")
    def _one_source(self) -> Environment:
        for name in ("ledger_url", "tracking_uri", "online_url"):
            if getattr(self, name) and getattr(self, f"{name}_from"):
                raise ValueError(f"either {name} or {name}_from")
        return self

    def places(self) -> dict[str, Any]:
        """The fields of `Settings` that this environment decides.

        Raises:
            ConfigInvalid: a variable that should hold an address is not set.
        """
        found: dict[str, Any] = {"environment": self.name, "anchors": self.anchors}
        found |= {name: getattr(self, name) for name in ("home", "policies", "features")}
        for name in ("ledger_url", "tracking_uri", "online_url"):
            variable = getattr(self, f"{name}_from")
            if variable and not os.environ.get(variable):
                wanted = f"the address in the environment variable {variable}"
                raise ConfigInvalid("environments", f"{self.name}.{name}_from", wanted, "nothing")
            found[name] = os.environ[variable] if variable else getattr(self, name)
        return found


class Environments(Strict):
    """All environments, in the order in which a version passes through them."""

    environments: tuple[Environment, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _once(self) -> Environments:
        for part in ("name", "home"):
            values = [str(getattr(one, part)) for one in self.environments]
            if len(set(values)) != len(values):
                raise ValueError(f"each {part} once")
        return self

    def named(self, name: str) -> Environment:
        """The environment of that name.

        Raises:
            UnknownName: there is none; names the nearest.
        """
        for one in self.environments:
            if one.name == name:
                return one
        raise UnknownName("environment", name, [one.name for one in self.environments])

    def before(self, name: str) -> Environment | None:
        """The environment from which versions come to this one; None for the first."""
        place = self.environments.index(self.named(name))
        return self.environments[place - 1] if place else None


def load_environments(path: Path) -> Environments:
    """The environments of a file.

    Raises:
        ConfigInvalid, InputInvalid: see contracts.yaml_file.load_strict.
    """
    if not path.is_file():
        hint = "write one (seatrial schema environments says what goes in), or name it: SEATRIAL_ENVIRONMENTS"
        raise InputInvalid(str(path), "a file of environments", "no such file", hint=hint)
    return load_strict(path, Environments)


def resolved(settings: Settings) -> Settings:
    """The settings with what their environment decides; what was set otherwise (SEATRIAL_HOME=...) wins.

    Raises:
        ConfigInvalid, InputInvalid: the file of environments cannot be read.
        UnknownName: it has no environment of that name.
    """
    if not settings.environment:
        return settings
    places = load_environments(settings.environments).named(settings.environment).places()
    return settings.model_copy(update={k: v for k, v in places.items() if k not in settings.model_fields_set})


def settings_in(settings: Settings, name: str) -> Settings:
    """The same settings in another environment: every place is that environment's, whatever was set before.

    Raises:
        ConfigInvalid, InputInvalid, UnknownName: as `resolved`.
    """
    return settings.model_copy(update=load_environments(settings.environments).named(name).places())
