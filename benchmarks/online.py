"""Online reads, writes and materialisation through Feast's API: our stores beside Feast's SQLite and Redis stores.

Run: `python -m benchmarks.online` (needs the redis extra and redis-server; some 6 minutes); writes docs/online.md.
A process a store, all with the same rows, asked in turn (A B C D, A B C D); answers are compared before anything is
measured. `--quick` does everything on few rows and writes nothing.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.online_report import FEATURES, Measured, report

OUTPUT = Path(__file__).parents[1] / "docs" / "online.md"
SIZES = (1, 10, 100, 1000)
HOUR = timedelta(hours=1)
Time = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """How much is done: rows held for reading, turns, calls of each size a turn, rows materialised, one-row writes,
    rounds of materialisation."""

    held: int
    turns: int
    calls: dict[int, int]
    million: int
    bulk: int
    writes: int
    rounds: int


FULL = Scale(20_000, 15, {1: 40, 10: 20, 100: 8, 1000: 1}, 1_000_000, 50_000, 150, 3)
QUICK = Scale(2_000, 2, {1: 20, 10: 10, 100: 5, 1000: 1}, 20_000, 2_000, 10, 2)


def rows(count: int, now: datetime, seed: int = 1) -> pd.DataFrame:
    """A row a key with 40 numbers, one in fifty of them unknown."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, len(FEATURES)))
    values[rng.random(values.shape) < 0.02] = np.nan
    frame = pd.DataFrame(values, columns=list(FEATURES))
    stamp = pd.Timestamp(now - HOUR).as_unit("us")
    return frame.assign(sku=[f"sku-{number:07d}" for number in range(count)], event_time=stamp, known_at=stamp)


def feast_store(folder: Path, online: dict[str, Any], *, engine: bool) -> Any:
    """An applied Feast repository: views by sku over Parquet in the folder above, on the given online store."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, String

    folder.mkdir()
    config: dict[str, Any] = {
        "project": "bench",
        "provider": "local",
        "registry": {"path": str(folder / "registry.db"), "cache_ttl_seconds": 3600},
        "offline_store": {"type": "features.asof_offline_store.AsofOfflineStore"},
        "online_store": online,
        "entity_key_serialization_version": 3,
    }
    if engine:
        config["batch_engine"] = {"type": "features.arrow_engine.ArrowComputeEngine"}
    store = FeatureStore(config=RepoConfig(**config))
    sku = Entity(name="sku", join_keys=["sku"], value_type=ValueType.STRING)
    fields = [Field(name="sku", dtype=String), *(Field(name=name, dtype=Float64) for name in FEATURES)]
    objects: list[Any] = [sku]
    for name, file in (("held", "bulk"), ("bulk", "bulk"), ("million", "million")):
        place, times = str(folder.parent / f"{file}.parquet"), ("event_time", "known_at")
        source = FileSource(
            name=f"{name}_file", path=place, timestamp_field=times[0], created_timestamp_column=times[1]
        )
        objects.append(FeatureView(name=name, entities=[sku], ttl=timedelta(days=30), schema=fields, source=source))
    store.apply(objects)
    return store


def settings_of(name: str, folder: Path, port: int) -> tuple[dict[str, Any], bool]:
    """The online store's settings and whether our compute engine goes with it."""
    return {
        "Seatrial embedded": (
            {"type": "features.embedded_online_store.EmbeddedOnlineStore", "path": str(folder / "lmdb")},
            True,
        ),
        "Feast SQLite": ({"type": "sqlite", "path": str(folder / "online.db")}, False),
        "Feast Redis": ({"type": "redis", "connection_string": f"127.0.0.1:{port},db=0"}, False),
        "Seatrial Redis": (
            {"type": "features.redis_online_store.RedisOnlineStore", "url": f"redis://127.0.0.1:{port}/1"},
            True,
        ),
    }[name]


class Worker:
    """One store in a process of its own: does what it is told and gives back an answer, or wall and CPU seconds."""

    def __init__(self, name: str, folder: Path, port: int, now: datetime) -> None:
        """Args:
        name, folder, port: which store, where the files are, where Redis is.
        now: the end of what is materialised.
        """
        online, engine = settings_of(name, folder, port)
        self._now = now
        self._feast = feast_store(folder / name.replace(" ", "_"), online, engine=engine)
        self._references = [f"held:{feature}" for feature in FEATURES]

    def load(self, count: int) -> None:
        """Hold rows for reading."""
        held = rows(count, self._now)
        for start in range(0, count, 5_000):
            self._feast.write_to_online_store("held", held.iloc[start : start + 5_000])

    def answer(self, keys: list[str]) -> dict[str, Any]:
        """What Feast answers."""
        found: dict[str, Any] = self._ask(keys).to_dict(include_event_timestamps=True)
        return found

    def read(self, some: list[list[str]]) -> dict[str, list[Time]]:
        """The call alone; with its message; with the dictionary; and our own reading where there is one.

        The first keys are asked for without being timed: another process had the processor before.
        """
        works: dict[str, Callable[[list[str]], Any]] = {
            "call": self._ask,
            "proto": lambda keys: self._ask(keys).proto,
            "dict": lambda keys: self._ask(keys).to_dict(),
        }
        if self._store is not None:
            works["direct"] = self._direct
        found = {}
        for how, work in works.items():
            work(some[0])
            found[how] = [timed(partial(work, keys)) for keys in some[1:]]
        return found

    def write(self, turn: int) -> dict[str, list[Time]]:
        """One row, newer each time; and below Feast, where there is a store of ours."""
        stamp = pd.Timestamp(self._now - HOUR + timedelta(seconds=turn + 1)).as_unit("us")
        # other values and another second: SQLite leaves a row alone that is the same to the second
        newer = rows(1, self._now, turn).assign(event_time=stamp, known_at=stamp)
        found = {"feast": [timed(lambda: self._feast.write_to_online_store("held", newer))]}
        if self._store is not None:
            again = newer.assign(event_time=stamp + pd.Timedelta(microseconds=5))
            found["direct"] = [timed(lambda: self._store.write("held", ("sku",), again))]
        return found

    def bring(self, view: str) -> Time:
        """Feast's materialize of one view into a store that has nothing of it."""
        online, table = self._feast._get_provider().online_store, self._feast.get_feature_view(view)
        online.update(self._feast.config, [table], [], [], [], True)
        online.update(self._feast.config, [], [table], [], [], True)
        gc.collect()
        span = (self._now - timedelta(days=2), self._now)
        return timed(lambda: self._feast.materialize(*span, feature_views=[view], force=True))

    def peak(self) -> float:
        """Peak memory in MB."""
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    @property
    def _store(self) -> Any:
        return getattr(self._feast._get_provider().online_store, "_store", None)

    def _ask(self, keys: list[str]) -> Any:
        return self._feast.get_online_features(self._references, [{"sku": key} for key in keys])

    def _direct(self, keys: list[str]) -> Any:
        from features.online_rows import Ask

        return self._store.read_many([Ask("held", FEATURES, (key,), timedelta(days=30)) for key in keys], self._now)


def timed(work: Callable[[], Any]) -> Time:
    """Wall and CPU seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def serve(connection: Any, name: str, folder: Path, port: int, now: datetime) -> None:
    """A worker's process: what comes is a method and its argument."""
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    worker = Worker(name, folder, port, now)
    while True:
        method, *arguments = connection.recv()
        if not method:
            return
        connection.send(getattr(worker, method)(*arguments))


@dataclass
class Rival:
    """A store's process, as seen from here."""

    name: str
    connection: Any
    process: Any
    found: Measured = field(default_factory=Measured)

    def call(self, method: str, *arguments: Any) -> Any:
        """Have something done and wait for it."""
        self.connection.send((method, *arguments))
        return self.connection.recv()


@contextmanager
def rivals(folder: Path, port: int, now: datetime) -> Iterator[list[Rival]]:
    """The stores' processes, in the order in which they take turns."""
    context, found = multiprocessing.get_context("spawn"), []
    for name in ("Seatrial embedded", "Feast SQLite", "Feast Redis", "Seatrial Redis"):
        here, there = context.Pipe()
        process = context.Process(target=serve, args=(there, name, folder, port, now), daemon=True)
        process.start()
        found.append(Rival(name, here, process))
    try:
        yield found
    finally:
        for rival in found:
            rival.connection.send(("",))
            rival.process.join(30)


def check_answers(found: list[Rival], scale: Scale) -> int:
    """Ask every store the same, unknown keys among it; all answers must be equal. Returns the values compared."""
    rng, compared = np.random.default_rng(3), 0
    for size in SIZES:
        keys = [f"sku-{number:07d}" for number in rng.integers(0, scale.held + scale.held // 50, size)]
        first, *others = (rival.call("answer", keys) for rival in found)
        for rival, other in zip(found[1:], others, strict=True):
            if other != first:
                raise SystemExit(f"{rival.name} answers otherwise than {found[0].name}")
            compared += size * len(FEATURES)
    return compared


def measure(found: list[Rival], scale: Scale) -> None:
    """Reads of each size, one-row writes, materialisations: every store in turn, each time."""
    rng = np.random.default_rng(4)
    for size in SIZES:
        for turn in range(scale.turns + 1):
            some = [
                [f"sku-{number:07d}" for number in rng.choice(scale.held, size, replace=False)]
                for _ in range(1 + scale.calls[size])
            ]
            for rival in found:
                times = rival.call("read", some)
                if turn:
                    rival.found.add(f"{size}", times)
    for turn in range(scale.writes):
        for rival in found:
            rival.found.add("write", rival.call("write", turn))
    for _ in range(scale.rounds):
        for rival in found:
            rival.found.add("bulk", {"feast": [rival.call("bring", "bulk")]})
    found[0].found.add("million", {"feast": [found[0].call("bring", "million")]})
    for rival in found:
        rival.found.peak = rival.call("peak")


@contextmanager
def redis_at(folder: Path) -> Iterator[int]:
    """A Redis of this run's own on loopback, with nothing kept on disk, ended by its process id."""
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit("redis-server is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    with (folder / "redis.log").open("wb") as log:
        server = subprocess.Popen([program, *options], stdout=log, stderr=log)
    try:
        for _ in range(250):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield port
    finally:
        server.kill()
        server.wait(10)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    scale = QUICK if parser.parse_args().quick else FULL
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for view, count in (("bulk", scale.bulk), ("million", scale.million)):
            rows(count, now, 2).to_parquet(folder / f"{view}.parquet")
        with redis_at(folder) as port, rivals(folder, port, now) as found:
            for rival in found:
                rival.call("load", scale.held)
            compared = check_answers(found, scale)
            measure(found, scale)
            measured = {rival.name: rival.found for rival in found}
    text = report(measured, SIZES, scale.held, scale.bulk, scale.million, compared)
    sys.stdout.write(text)
    if scale is FULL:
        OUTPUT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
