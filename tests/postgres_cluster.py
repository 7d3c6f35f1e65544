"""A PostgreSQL cluster of the tests' own: loopback, a free port, a folder that goes with it, stopped at the end."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from tests.features.redis_server import free_port

_SETTINGS = (
    "listen_addresses = '127.0.0.1'\nmax_connections = 60\nshared_buffers = 16MB\nlog_min_messages = fatal\n"
    "autovacuum = off\nfsync = on\n"
)


_STOP = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


class Cluster:
    """A running server; `stop` and `start` as often as a test wants."""

    def __init__(self, folder: Path, programs: Path, user: str) -> None:
        self.folder, self._programs, self._user, self.port = folder, programs, user, free_port()
        self._server: subprocess.Popen[Any] | None = None
        self._run("initdb", "-D", "data", "-U", "seatrial", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        with (folder / "data" / "postgresql.conf").open("a") as file:
            file.write(f"{_SETTINGS}port = {self.port}\nunix_socket_directories = '{folder}'\n")

    def start(self) -> None:
        """Start, and wait until it answers; should the tests be killed, the server goes with them."""
        with (self.folder / "log").open("ab") as out:
            server: subprocess.Popen[Any] = subprocess.Popen(
                [str(self._programs / "postgres"), "-D", "data"],
                **self._surroundings(out),
                preexec_fn=lambda: ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGQUIT),
            )
        self._server = server
        for _ in range(600):
            if server.poll() is not None:
                break
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0 and self._answers():
                    return
            time.sleep(0.05)
        raise RuntimeError(f"postgres: {(self.folder / 'log').read_text()[-500:]}")

    def stop(self, mode: str = "immediate") -> None:
        """Stop; `immediate` is what a crash is like."""
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(_STOP[mode])
            try:
                self._server.wait(30)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait(30)

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"t{uuid.uuid4().hex[:12]}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "seatrial", name)
        return f"postgresql+pg8000://seatrial@127.0.0.1:{self.port}/{name}"

    def _answers(self) -> bool:
        try:
            self._run("pg_isready", "-h", "127.0.0.1", "-p", str(self.port))
        except RuntimeError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        with (self.folder / "commands.log").open("ab") as out:
            command = [str(self._programs / program), *arguments]
            done = subprocess.run(command, timeout=60, **self._surroundings(out))
        if done.returncode:
            raise RuntimeError(f"{program}: {(self.folder / 'commands.log').read_text()[-500:]}")

    def _surroundings(self, out: IO[bytes]) -> dict[str, Any]:
        variables = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "HOME": str(self.folder)}
        streams = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": out}
        return {"cwd": self.folder, "user": self._user or None, "env": variables, **streams}


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A running cluster; skips the test, with the reason, where there is none to be had."""
    pytest.importorskip("pg8000", reason="the postgres extra is not installed")
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed (initdb, postgres)")
    user = _other_user()
    if user is None:
        pytest.skip("initdb refuses to run as root, and there is no user postgres or nobody")
    # Not below pytest's own folder, which other users may not enter; the short name is for the socket's sake.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    running = None
    try:
        if user:
            shutil.chown(folder, user)
        try:
            running = Cluster(folder, programs, user)
            running.start()
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"PostgreSQL does not start here: {error}")
        yield running
    finally:
        if running is not None:
            running.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """One cluster for a test session (with xdist: one for each worker); import it where it is used."""
    with cluster() as running:
        yield running


def _programs() -> Path | None:
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: float(p.parts[-3]), reverse=True)
    places += [place.parent for place in versions]
    return next((place for place in places if (place / "createdb").exists()), None)


def _other_user() -> str | None:
    """Whom to run as: empty for ourselves, None when we are root and there is nobody else."""
    if os.geteuid() != 0:
        return ""
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in known), None)
