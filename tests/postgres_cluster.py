"""A PostgreSQL cluster of the tests' own: loopback, a free port, a folder that goes with it, stopped at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.features.redis_server import free_port

_SETTINGS = (
    "listen_addresses = '127.0.0.1'\nmax_connections = 60\nshared_buffers = 16MB\nlog_min_messages = fatal\n"
    "autovacuum = off\nfsync = on\n"
)


class Cluster:
    """A running server; `stop` and `start` as often as a test wants."""

    def __init__(self, folder: Path, programs: Path, user: str) -> None:
        self.folder, self._programs, self._user, self.port = folder, programs, user, free_port()
        self._run("initdb", "-D", "data", "-U", "seatrial", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        with (folder / "data" / "postgresql.conf").open("a") as file:
            file.write(f"{_SETTINGS}port = {self.port}\nunix_socket_directories = '{folder}'\n")

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._run("pg_ctl", "-D", "data", "-l", "log", "-w", "-t", "30", "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop; `immediate` is what a crash is like."""
        self._run("pg_ctl", "-D", "data", "-m", mode, "-w", "-t", "30", "stop", check=False)

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"t{uuid.uuid4().hex[:12]}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "seatrial", name)
        return f"postgresql+pg8000://seatrial@127.0.0.1:{self.port}/{name}"

    def _run(self, program: str, *arguments: str, check: bool = True) -> None:
        # The server must not inherit a pipe of ours: reading it would never end.
        with (self.folder / "commands.log").open("ab") as out:
            done = subprocess.run(
                [str(self._programs / program), *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                timeout=60,
                user=self._user or None,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "HOME": str(self.folder)},
            )
        if check and done.returncode:
            raise RuntimeError(f"{program}: {(self.folder / 'commands.log').read_text()[-500:]}")


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A running cluster; skips the test, with the reason, where there is none to be had."""
    pytest.importorskip("pg8000", reason="the postgres extra is not installed")
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed (initdb, pg_ctl)")
    user = _other_user()
    if user is None:
        pytest.skip("initdb refuses to run as root, and there is no user postgres or nobody")
    # Not below pytest's own folder, which other users may not enter; the short name is for the socket's sake.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        if user:
            shutil.chown(folder, user)
        running = None
        try:
            running = Cluster(folder, programs, user)
            running.start()
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"PostgreSQL does not start here: {error}")
        yield running
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            subprocess.run(
                [str(programs / "pg_ctl"), "-D", "data", "-m", "immediate", "-w", "stop"],
                cwd=folder,
                capture_output=True,
                timeout=60,
                user=user or None,
            )
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """One cluster for a test session (with xdist: one for each worker); import it where it is used."""
    with cluster() as running:
        yield running


def _programs() -> Path | None:
    found = shutil.which("pg_ctl")
    places = [Path(found).resolve().parent] if found and shutil.which("initdb") else []
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: float(p.parts[-3]), reverse=True)
    places += [place.parent for place in versions]
    return next((place for place in places if (place / "createdb").exists()), None)


def _other_user() -> str | None:
    """Whom to run as: empty for ourselves, None when we are root and there is nobody else."""
    if os.geteuid() != 0:
        return ""
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in known), None)
