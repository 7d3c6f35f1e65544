"""Runs every fault test for real; what held, with the figures that the tests recorded, goes to docs/reliability.md.

Run: `make faults` (ordinary) or `make faults-long`. Exit code 1 when a fault test failed; the page is written all the
same and says so.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
FAULTS = ROOT / "tests" / "faults"
OUTPUT = ROOT / "docs" / "reliability.md"
_NUMBER = re.compile(r"test_f(\d+)_")


@dataclass
class Row:
    """One numbered fault: what its tests say they do, and how they ended."""

    number: int
    promises: list[str] = field(default_factory=list)
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    figures: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def run(report: Path, *, long: bool) -> int:
    """Run the fault tests; pytest's exit code."""
    chosen = [] if long else ["-m", "not long"]
    command = [sys.executable, "-m", "pytest", str(FAULTS), "-n", "2", "--dist", "loadfile", f"--junitxml={report}"]
    return subprocess.run([*command, "-o", "junit_family=xunit1", *chosen], cwd=ROOT, check=False).returncode


def collect(report: Path) -> dict[int, Row]:
    """The numbered rows of a JUnit report, with the promise that each test file opens with."""
    rows: dict[int, Row] = {}
    for path in sorted(FAULTS.glob("test_f*_*.py")):
        found = _NUMBER.match(path.name)
        if found:
            row = rows.setdefault(int(found.group(1)), Row(int(found.group(1))))
            row.promises.append(_promise(path))
    for case in ET.parse(report).getroot().iter("testcase"):
        found = _NUMBER.search(case.get("classname", ""))
        if found:
            _add(rows[int(found.group(1))], case)
    return dict(sorted(rows.items()))


def _promise(path: Path) -> str:
    words = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or path.stem).split("\n\n")[0]
    return re.sub(r"^(Faults?|FAULTS) \d[^:]*: ", "", " ".join(words.split()))


def _add(row: Row, case: ET.Element) -> None:
    skipped = case.find("skipped")
    if case.find("failure") is not None or case.find("error") is not None:
        row.failed.append(case.get("name", "?"))
    elif skipped is not None:
        row.skipped[(skipped.get("message") or "no reason given").removeprefix("Skipped: ")] += 1
    else:
        row.passed += 1
    for one in case.iter("property"):
        row.figures[one.get("name", "").removeprefix("figure: ")].append(one.get("value", ""))


def page(rows: dict[int, Row], *, long: bool) -> str:
    """The page: one line a fault, then the figures."""
    verb = "make faults-long" if long else "make faults"
    lines = [
        "# Faults, and what held",
        "",
        f"Written by `{verb}` (benchmarks/reliability.py): every row is a promise with tests of its own",
        "(`tests/faults/test_fNN_*.py`) that do the thing for real: processes killed, servers stopped, disks full,",
        "files damaged, keys forged. After each the invariants are asserted: one champion or none, its files verify,",
        "the chain verifies, no promotion without a passing gate. How often verdicts err is measured apart:",
        "[gates.md](gates.md) (offline gate) and [verdicts.md](verdicts.md) (rollouts).",
        "",
        "| fault | what was done, and what held | cases passed | failed | not run here |",
        "|---|---|---|---|---|",
    ]
    for row in rows.values():
        words = " / ".join(dict.fromkeys(row.promises))
        skipped = "; ".join(f"{count}: {why}" for why, count in row.skipped.items())
        failed = ", ".join(row.failed) or "0"
        lines.append(f"| {row.number} | {words} | {row.passed} | {failed} | {skipped} |")
    lines += ["", "## Figures", "", "| fault | figure | as measured |", "|---|---|---|"]
    for row in rows.values():
        lines += [f"| {row.number} | {name} | {_summed(values)} |" for name, values in row.figures.items()]
    return "\n".join(lines) + "\n"


def _summed(values: list[str]) -> str:
    """One value as it is; many numbers as their sum, many words once each."""
    if len(values) > 1 and all(re.fullmatch(r"\d+", value) for value in values):
        return str(sum(int(value) for value in values))
    return "; ".join(dict.fromkeys(values))


def main() -> None:
    """Run, collect, write."""
    long = "--long" in sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="seatrial-faults-") as folder:
        report = Path(folder) / "report.xml"
        code = run(report, long=long)
        if not report.exists():
            sys.exit(code or 1)
        rows = collect(report)
    OUTPUT.write_text(page(rows, long=long), encoding="utf-8")
    sys.stdout.write(f"{sum(row.passed for row in rows.values())} cases of {len(rows)} faults held; {OUTPUT.name}\n")
    sys.exit(1 if code else 0)


if __name__ == "__main__":
    main()
