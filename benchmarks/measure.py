"""Measuring one piece of work in a process of its own: wall and CPU seconds, peak memory, limits, a warm page cache."""

from __future__ import annotations

import gc
import json
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Cost:
    """What one piece of work took.

    `wall`, `cpu`: seconds (CPU of all threads and ended children). `peak_mb`: most resident memory of the process while
    it ran; `above_mb`: the same less what was resident when it began (imports, the rows that are asked about).
    """

    wall: float
    cpu: float
    peak_mb: float
    above_mb: float


def measured(work: Callable[[], Any]) -> tuple[Any, Cost]:
    """The result of `work` and its cost; the kernel's high-water mark of this process begins anew."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before, cpu, wall = _resident("VmRSS"), _cpu(), time.perf_counter()
    result = work()
    wall, cpu = time.perf_counter() - wall, _cpu() - cpu
    peak = _resident("VmHWM")
    return result, Cost(wall, cpu, peak, max(peak - before, 0.0))


def limit_memory(gigabytes: float) -> None:
    """Let allocations of this process fail beyond a limit (RLIMIT_DATA: heap and private writable mappings)."""
    limit = int(gigabytes * (1 << 30))
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def warm(paths: Iterable[Path]) -> None:
    """Read files, or all files below folders, once, so that each contender finds them in the page cache."""
    for path in paths:
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file():
                with file.open("rb") as stream:
                    while stream.read(8 * MEGABYTE):
                        pass


def in_child(module: str, arguments: Sequence[str], *, seconds: float) -> dict[str, Any]:
    """Run `python -m module arguments` and read the JSON object of its last line of output.

    Returns:
        The object; or {"stopped": why} when it ran out of time, of memory, or ended without an answer.
    """
    command = [sys.executable, "-m", module, *arguments]
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "DO_NOT_TRACK": "1"}
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return {"stopped": f"stopped at {seconds:.0f} s"}
    taken = time.perf_counter() - began
    lines = output.strip().splitlines()
    if process.returncode == 0 and lines:
        answer: dict[str, Any] = json.loads(lines[-1])
        return answer
    said = (errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
    if _is_memory(errors) or process.returncode in (-signal.SIGKILL, -signal.SIGSEGV, -signal.SIGABRT):
        return {"stopped": f"stopped at the memory limit after {taken:.0f} s", "said": said[:200]}
    return {"stopped": f"failed after {taken:.0f} s: {said[:120]}", "said": errors[-2000:]}


def tell(answer: Mapping[str, Any]) -> None:
    """A child's answer to `in_child`: one line of JSON, the last it prints."""
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    sys.stdout.flush()


def medians(costs: Sequence[Cost]) -> Cost:
    """The median of each figure."""
    rows = [asdict(cost) for cost in costs]
    return Cost(**{name: statistics.median(row[name] for row in rows) for name in rows[0]})


def machine() -> str:
    """The machine in one line: cores, processor, memory, Python."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    python = ".".join(str(part) for part in sys.version_info[:2])
    return f"{os.cpu_count()} cores ({names[0] if names else 'unknown'}), {memory:.0f} GB, Python {python}"


def _cpu() -> float:
    sums = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in sums)


def _resident(name: str) -> float:
    """A figure of /proc/self/status in MB."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(float(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith(f"{name}:"))


def _is_memory(errors: str) -> bool:
    words = (
        "MemoryError",
        "bad_alloc",
        "Out of Memory",
        "OutOfMemory",
        "Cannot allocate",
        "malloc of size",
        "realloc of",
    )
    return any(word in errors for word in words) or ("memory allocation of" in errors)


def write_section(path: Path, name: str, text: str) -> None:
    """Put text between the markers of that name in a page.

    Raises:
        ValueError: the page has no such markers.
    """
    page = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    new, count = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{text}\n{end}", page, flags=re.S
    )
    if count != 1:
        raise ValueError(f"{path.name} has no section {name}")
    path.write_text(new, encoding="utf-8")
