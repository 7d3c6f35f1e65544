"""The offline point-in-time join, measured: ours through Feast's API against Feast's own stores, Polars and DuckDB.

Same data, same questions, same answers, checked cell by cell against a plain reference. Each contender runs in a
process of its own; rounds alternate. Run: `python -m benchmarks.point_in_time` (about 8 minutes; --slow adds
contenders that take minutes or run into the limits); writes docs/point_in_time.md.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import MEGABYTE, Cost, in_child, limit_memory, machine, measured, medians, tell, warm
from benchmarks.point_in_time_contenders import CONTENDERS, as_table, ours_build
from benchmarks.point_in_time_data import FEATURES, SOURCES, Folder, answer, check, make

ROUNDS, SECONDS, GIGABYTES, LONG = 3, 300, 14.0, 60.0
BUILD = "index build"
INDEXED, PLAIN = "ours, index present", "ours, no index"
POLARS = ("Polars join_asof", "Polars join_asof, then gather")
BARE = (INDEXED, PLAIN, *POLARS, "DuckDB ASOF")
OUTPUT = Path(__file__).parents[1] / "docs" / "point_in_time.md"


@dataclass(frozen=True)
class Size:
    """How many rows ask and are asked, who takes part, and who does only with --slow."""

    name: str
    questions: int
    rows: int
    contenders: tuple[str, ...]
    slow: tuple[str, ...] = ()
    rounds: int = ROUNDS

    @property
    def title(self) -> str:
        """Like 100,000 x 1,000,000."""
        return f"{self.questions:,} entity rows x {self.rows:,} source rows"


SIZES = (
    Size("small", 20_000, 200_000, (*BARE, "Feast duckdb", "Feast file"), rounds=1),
    Size("medium", 100_000, 1_000_000, (*BARE, "Feast duckdb"), slow=("Feast file",)),
    Size("large", 1_000_000, 10_000_000, BARE, slow=("Feast duckdb",)),
)


@dataclass
class Runs:
    """What the runs of one contender gave."""

    costs: list[Cost] = field(default_factory=list)
    checks: dict[str, Any] = field(default_factory=dict)
    stopped: str = ""

    @property
    def again(self) -> bool:
        """Whether another round is worth its time."""
        return not self.stopped and not (self.costs and self.costs[-1].wall > LONG)

    @property
    def cost(self) -> Cost | None:
        """Medians over the rounds."""
        return medians(self.costs) if self.costs else None


def contender(name: str, folder: Folder, home: Path) -> dict[str, Any]:
    """In the child: one contender's query, timed once after a warm-up on small data that imports what it needs."""
    prepare = CONTENDERS[name]
    prepare(home / "tiny", Folder(home / "tiny-data"))()
    query = prepare(home / "repo" / folder.path.name, folder)
    warm([folder.path, home / "repo" / folder.path.name])
    result, cost = measured(query)
    return {"cost": asdict(cost), "checks": check(folder, as_table(result))}


def build(folder: Folder, home: Path) -> dict[str, Any]:
    """In the child: building the indexes of all views anew."""
    repo = home / "repo" / folder.path.name
    small = ours_build(home / "tiny", Folder(home / "tiny-data"))
    shutil.rmtree(repo / "ours-index" / "index", ignore_errors=True)
    prepared = ours_build(repo, folder)
    if small is None or prepared is None:
        return {"stopped": "the store has no build_indexes"}
    small[0]()
    warm([folder.path])
    work, where = prepared
    _, cost = measured(work)
    size = sum(file.stat().st_size for file in where.rglob("*") if file.is_file())
    return {"cost": asdict(cost), "checks": {"megabytes": size / MEGABYTE}}


def run(size: Size, home: Path, *, slow: bool, say: Callable[[str], object]) -> dict[str, Runs]:
    """All contenders of one size, in turn, round after round.

    Args:
        home: folder for data, repositories and indexes.
        slow: whether those take part that take minutes or run into the limits.
        say: told of each run.
    """
    make(home / "tiny-data", 1_000, 10_000)
    folder = make(home / size.name, size.questions, size.rows)
    answer(folder)
    names = [BUILD, *size.contenders, *(size.slow if slow else ())]
    found = {name: Runs() for name in names}
    for number in range(size.rounds):
        for name in (name for name in names if found[name].again):
            arguments = ["--child", name, "--data", str(folder.path), "--folder", str(home)]
            answered = in_child("benchmarks.point_in_time", arguments, seconds=SECONDS)
            if "stopped" in answered:
                found[name].stopped = answered["stopped"]
            else:
                found[name].costs.append(Cost(**answered["cost"]))
                found[name].checks = answered["checks"]
            say(f"{size.name} {number + 1}/{size.rounds} {name}: {answered}\n")
    return found


def table(size: Size, found: dict[str, Runs]) -> list[str]:
    """The Markdown table of one size; ratios to ours with its index first."""
    ours = found[INDEXED].cost
    lines = [
        f"## {size.title}",
        "",
        "| contender | wall x | CPU x | peak x | wall s | CPU s | peak MB | added MB | rows returned | answers |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in found.items():
        if name == BUILD:
            continue
        cost = runs.cost
        if cost is None or ours is None:
            lines.append(f"| {name} | - | - | - | {runs.stopped or 'not run'} | - | - | - | - | - |")
            continue
        ratios = (cost.wall / ours.wall, cost.cpu / ours.cpu, cost.peak_mb / ours.peak_mb)
        shown = " | ".join(f"{ratio:.1f}" for ratio in ratios)
        figures = f"{cost.wall:.2f} | {cost.cpu:.2f} | {cost.peak_mb:,.0f} | {cost.above_mb:,.0f}"
        lines.append(f"| {name} | {shown} | {figures} | {runs.checks['rows']:,} | {verdict(runs.checks)} |")
    skipped = [name for name in size.slow if name not in found]
    lines += ["", *(f"{name} takes part with `--slow` only." for name in skipped), index_line(found), ""]
    return lines


def verdict(checks: dict[str, Any]) -> str:
    """What the check of a contender's answers says."""
    faults = [f"{checks['lost']:,} rows lost"] if checks["lost"] else []
    faults += [f"{checks['wrong']:,} cells wrong"] if checks["wrong"] else []
    if faults:
        return ", ".join(faults)
    return "equal" if checks["in_order"] else "equal, rows in another order"


def index_line(found: dict[str, Runs]) -> str:
    """Build time and size of the index, and after how many queries it has paid for itself."""
    built, ours = found[BUILD].cost, found[INDEXED].cost
    if built is None or ours is None:
        return f"Index build: {found[BUILD].stopped or 'not run'}."
    plain = found[PLAIN].cost
    rivals = [cost for cost in (found[name].cost for name in POLARS if name in found) if cost is not None]
    rival = min(rivals, key=lambda cost: cost.wall) if rivals else None
    paid = ", ".join(
        f"{break_even(built.wall, ours.wall, other.wall)} / {break_even(built.cpu, ours.cpu, other.cpu)} against {name}"
        for name, other in (("ours without an index", plain), ("the faster Polars", rival))
        if other is not None
    )
    return (
        f"Index build: {built.wall:.2f} s wall, {built.cpu:.2f} s CPU, {built.peak_mb:,.0f} MB peak, "
        f"{found[BUILD].checks['megabytes']:,.0f} MB on disk. "
        f"It has paid for itself after this many queries, by wall / by CPU: {paid}."
    )


def break_even(build_seconds: float, ours: float, other: float) -> str:
    """Number of queries after which building and asking the index takes less than asking the other."""
    return "never" if other <= ours else f"{math.ceil(build_seconds / (other - ours)):,}"


def page(tables: Sequence[str], command: str) -> str:
    """The whole document."""
    head = [
        "# The point-in-time join, measured",
        "",
        f"`{command}` on {machine()}.",
        "",
        f"{len(SOURCES)} feature views, {len(FEATURES)} features (doubles with 3% nulls, a whole number, a text), two",
        "views with keys of two columns, one source row in ten known late, one in twenty restated later; the cut at",
        "what was known is on for everyone. Each contender runs in a fresh process after a warm-up on small data:",
        "imports, repository and questions are ready, files are in the page cache, the query runs once. Medians of",
        f"{ROUNDS} alternating rounds (1 at the smallest size and for what takes over {LONG:.0f} s). Ratios are",
        "contender / ours with its index present: over 1 means ours takes less. CPU counts all threads. Peak is the",
        "resident memory of the whole process, mapped index and result included; added is what the query put on top",
        "of imports and questions. Answers are compared cell by cell with a reference that joins all pairs of a key",
        f"and takes the greatest. A contender is stopped at {SECONDS} s or {GIGABYTES:.0f} GB of allocations.",
        "",
    ]
    return "\n".join([*head, *tables]).rstrip() + "\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    sizes = [size.name for size in SIZES]
    parser.add_argument("--sizes", default=",".join(sizes), help="which of " + ", ".join(sizes))
    parser.add_argument("--slow", action="store_true", help="also those that take minutes or run into the limits")
    parser.add_argument("--folder", type=Path, help="keep data and indexes here; a temporary folder when not given")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure, print, write."""
    given = _arguments()
    if given.child:
        limit_memory(GIGABYTES)
        folder = Folder(given.data)
        tell(build(folder, given.folder) if given.child == BUILD else contender(given.child, folder, given.folder))
        return
    chosen = [size for size in SIZES if size.name in given.sizes.split(",")]
    command = " ".join(["python -m benchmarks.point_in_time", *(["--slow"] if given.slow else [])])
    with tempfile.TemporaryDirectory(prefix="seatrial-bench-") as temporary:
        home = (given.folder or Path(temporary)).absolute()
        tables: list[str] = []
        for size in chosen:
            tables += table(size, run(size, home, slow=given.slow, say=sys.stderr.write))
    text = page(tables, command)
    sys.stdout.write(text)
    given.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
