"""The page that benchmarks/online.py writes: ratios first, then what was measured."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import numpy as np

FEATURES = tuple(f"f{number:02d}" for number in range(40))


class Measured:
    """Wall and CPU seconds of one store, by what was done and how; and its process' peak memory in MB."""

    def __init__(self) -> None:
        self.times: dict[tuple[str, str], list[tuple[float, float]]] = {}
        self.peak = 0.0

    def add(self, what: str, times: Mapping[str, Sequence[tuple[float, float]]]) -> None:
        """Note some times."""
        for how, some in times.items():
            self.times.setdefault((what, how), []).extend(some)

    def median(self, what: str, how: str, cpu: int = 0) -> float:
        """Median of the wall (0) or CPU (1) seconds."""
        return statistics.median(time[cpu] for time in self.times[what, how])

    def cell(self, what: str, how: str) -> str:
        """p50 / p99 wall and p50 CPU in milliseconds; a dash when it was not done."""
        if (what, how) not in self.times:
            return "-"
        wall, cpu = (np.array(column) * 1e3 for column in zip(*self.times[what, how], strict=True))
        return f"{np.median(wall):.2f} / {np.percentile(wall, 99):.2f}, {np.median(cpu):.2f}"


def report(
    found: Mapping[str, Measured], sizes: Sequence[int], held: int, bulk: int, million: int, compared: int
) -> str:
    """The page.

    Args:
        found: what was measured, by store: ours first, then SQLite, Redis, and ours on Redis.
        sizes: numbers of keys of the reads.
        held, bulk, million: rows held for reading, materialised by all, and by ours alone.
        compared: values that were found equal.
    """
    names, stores = list(found), list(found.values())
    ours = stores[0]
    title = "| | " + " | ".join(names) + " |\n|---|" + "---|" * len(names)
    lines = [
        "# Online features",
        "",
        f"`python -m benchmarks.online`: Feast {version('feast')}, {os.cpu_count()} cores,",
        f"load {os.getloadavg()[0]:.1f}. {held:,} text keys held, {len(FEATURES)} numbers a row, one in fifty unknown;",
        f"random keys; a process a store, asked in turn; {compared:,} values compared with ours, all equal.",
        "",
        "## Ratios: how many times longer the other takes (medians; wall, and CPU of the calling process)",
        "",
        *_ratios(stores, sizes, bulk),
        "",
        "## Reads: p50 / p99 wall, p50 CPU, in milliseconds",
        "",
        title,
    ]
    for how, label in (("call", "the call"), ("proto", "and its message"), ("dict", "and to_dict()")):
        for size in sizes:
            cells = " | ".join(store.cell(str(size), how) for store in stores)
            lines.append(f"| keys: {size:,}, {label} | {cells} |")
    for size in sizes:
        cells = " | ".join(store.cell(str(size), "direct") for store in stores)
        lines.append(f"| keys: {size:,}, our own reading | {cells} |")
    lines += [
        "",
        "Our response parses Feast's message when it is asked for and makes the dictionary without it; Feast's",
    ]
    lines += ["makes the message first. Our own reading is what serving calls: each row with its age and status."]
    lines += ["", "## One row written: p50 / p99 wall, p50 CPU, in milliseconds", "", title]
    for how, label in (("feast", "write_to_online_store"), ("direct", "our own write, without Feast")):
        lines.append(f"| {label} | " + " | ".join(store.cell("write", how) for store in stores) + " |")
    lines += ["", *_DURABILITY, "", "## Materialised: Feast's materialize from one Parquet file", ""]
    lines += ["| | rows | seconds | rows a second | CPU seconds | peak MB |", "|---|---|---|---|---|---|"]
    lines += [_moved(name, store, "bulk", bulk) for name, store in found.items()]
    lines.append(_moved(names[0], ours, "million", million))
    lines += ["", f"Feast's own stores are given {bulk:,} rows only: a million makes a message a value, minutes and"]
    lines += [
        "gigabytes. Our offline store is below all of them; ours go with our compute engine, Feast's with Feast's."
    ]
    lines += ["CPU inside the Redis server is not in these figures; peak memory is of the whole run of that store."]
    return "\n".join(lines) + "\n"


_DURABILITY = (
    "Ours syncs the data at the commit, and after it the page that makes it the newest; Feast's SQLite has SQLite's",
    "defaults (rollback journal, synchronous=FULL): both are on the disk when the call returns. Redis keeps nothing on",
    "disk here.",
)


def _ratios(stores: Sequence[Measured], sizes: Sequence[int], bulk: int) -> list[str]:
    ours, sqlite, redis, guarded = stores
    pairs = ((sqlite, ours), (redis, ours), (redis, guarded))
    lines = ["| | Feast SQLite to ours | Feast Redis to ours | Feast Redis to our Redis |", "|---|---|---|---|"]
    works = [(f"get_online_features, keys: {size:,}", str(size), "call") for size in sizes]
    works += [(f"and to_dict(), keys: {size:,}", str(size), "dict") for size in sizes]
    works += [("write one row", "write", "feast"), (f"materialize {bulk:,} rows", "bulk", "feast")]
    for label, what, how in works:
        cells = [
            f"{other.median(what, how) / mine.median(what, how):.1f} ({_share(other, mine, what, how)} CPU)"
            for other, mine in pairs
        ]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return lines


def _share(other: Measured, mine: Measured, what: str, how: str) -> str:
    return f"{other.median(what, how, 1) / max(mine.median(what, how, 1), 1e-9):.1f}"


def _moved(name: str, store: Measured, what: str, count: int) -> str:
    wall, cpu = store.median(what, "feast"), store.median(what, "feast", 1)
    return f"| {name} | {count:,} | {wall:.1f} | {count / wall:,.0f} | {cpu:.1f} | {store.peak:,.0f} |"
