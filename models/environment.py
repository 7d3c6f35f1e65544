"""Which versions of other people's code a run stood on, as one hash."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

LOCK = Path(__file__).resolve().parents[1] / "requirements.lock"


@cache
def environment_hash(lock: Path = LOCK) -> tuple[str, str]:
    """What was hashed, and its SHA-256.

    Args:
        lock: the lock file beside the packages; a wheel does not bring it.

    Returns:
        ("requirements.lock", hash of the file), or where there is none ("installed distributions", hash of the sorted
        lines name==version of everything that is installed).
    """
    if lock.is_file():
        return lock.name, hashlib.sha256(lock.read_bytes()).hexdigest()
    found = {f"{(one.metadata['Name'] or '').lower()}=={one.version}" for one in distributions()}
    return "installed distributions", hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()
