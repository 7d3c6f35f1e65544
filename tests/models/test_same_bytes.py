"""The same inputs make the same model file, byte for byte, in whatever process and with however many threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TASK = Path(__file__).with_name("training_task.py")


def trained(kind: str, folder: Path, threads: int) -> str:
    """Hash of the sealed artifact of a training in a new process."""
    environment = os.environ | {"SEATRIAL_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    # Hashing of texts is random by process: an order that rested on it would show.
    environment["PYTHONHASHSEED"] = "random"
    words = [sys.executable, str(TASK), kind, str(folder)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["forecast", "risk"])
def test_two_processes_make_the_same_artifact(kind: str, tmp_path: Path) -> None:
    """One with one thread, one with two: the manifests, which hold the hash of every file, are the same."""
    first, second = (trained(kind, tmp_path / str(threads), threads) for threads in (1, 2))
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    different = [n for n in names if (tmp_path / "1" / n).read_bytes() != (tmp_path / "2" / n).read_bytes()]
    assert different == []
    assert (len(first), first) == (64, second)
