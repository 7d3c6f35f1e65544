"""How long work tells where it is: a function of a stage and the share of it that is done, in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float], None]


def quiet(_stage: str, _share: float) -> None:
    """Progress that nobody watches."""
