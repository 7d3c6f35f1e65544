"""Fixtures of the registry's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.registry.rig import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """An empty registry in a folder of its own."""
    return World(tmp_path)
