"""Environments: each with its places, in order, without a password in the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.environments import load_environments, resolved, settings_in
from contracts.errors import ConfigInvalid, UnknownName
from contracts.settings import Settings

FILE = """
environments:
  - {name: dev, home: dev-home}
  - {name: staging, home: staging-home, ledger_url_from: STAGING_LEDGER}
  - {name: prod, home: prod-home, requires: champion, policies: prod-policies}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three environments; the second keeps its ledger's address in a variable."""
    monkeypatch.setenv("STAGING_LEDGER", "postgresql+pg8000://somewhere/ledger")
    path = tmp_path / "environments.yaml"
    path.write_text(FILE)
    return path


def test_an_environment_decides_the_places_that_were_not_set(file: Path) -> None:
    """Home, policies and addresses are the environment's; what was set otherwise wins."""
    settings = resolved(Settings(environments=file, environment="staging"))
    assert (settings.home, settings.ledger) == (Path("staging-home"), "postgresql+pg8000://somewhere/ledger")
    assert resolved(Settings(environments=file, environment="prod", home=Path("mine"))).home == Path("mine")
    assert resolved(Settings(home=Path("mine"))).home == Path("mine")


def test_the_settings_of_another_environment_hold_none_of_this_ones(file: Path) -> None:
    """Looking into another environment takes every place from it, whatever was set for the present one."""
    here = Settings(environments=file, environment="dev", home=Path("mine"), ledger_url="sqlite:///mine.db")
    there = settings_in(here, "prod")
    assert (there.home, there.ledger_url, there.policies) == (Path("prod-home"), "", Path("prod-policies"))


def test_versions_come_from_the_environment_before(file: Path) -> None:
    """The order of the file is the way; the first environment takes from nobody."""
    known = load_environments(file)
    assert known.before("dev") is None
    before = known.before("prod")
    assert before is not None
    assert before.name == "staging"
    with pytest.raises(UnknownName, match="did you mean 'staging'"):
        known.named("stagin")


@pytest.mark.parametrize(
    "text",
    [
        "environments: []",
        "environments: [{name: dev, home: a}, {name: dev, home: b}]",
        "environments: [{name: dev, home: a}, {name: prod, home: a}]",
        "environments: [{name: dev, home: a, ledger_url: x, ledger_url_from: Y}]",
        "environments: [{name: dev, home: a, requires: luck}]",
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path: Path, text: str) -> None:
    """No environment, two of one name or home, two sources of one address, an unknown requirement."""
    path = tmp_path / "environments.yaml"
    path.write_text(text)
    with pytest.raises(ConfigInvalid):
        load_environments(path)


def test_a_variable_that_is_not_set_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing address is an error that names the variable, never an empty workspace somewhere else."""
    monkeypatch.delenv("STAGING_LEDGER")
    with pytest.raises(ConfigInvalid, match="STAGING_LEDGER"):
        resolved(Settings(environments=file, environment="staging"))
