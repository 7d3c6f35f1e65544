"""Which code made a decision: one hash over the sources of the seven packages."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

PACKAGES = ("contracts", "features", "models", "registry", "serving", "drift", "lifecycle")


def source_revision(root: Path, packages: tuple[str, ...] = PACKAGES) -> str:
    """First 16 hexadecimal digits of SHA-256 over every .py file below `root`'s packages: relative path and content.

    Packages that are not there are left out, so a bento that ships fewer has another revision than its checkout.
    """
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted((root / package).rglob("*.py"), key=lambda item: item.relative_to(root).as_posix()):
            content = path.read_bytes().replace(b"\r\n", b"\n")
            digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()[:16]


@cache
def code_revision() -> str:
    """Revision of the code that runs now, read once a process; works in a checkout, a wheel and a bento."""
    return source_revision(Path(__file__).resolve().parent.parent)
