"""What commands share at the terminal: progress that is off when nobody watches, and one way to print a result."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lifecycle.progress import Progress, quiet


@contextmanager
def progress_bar(*, json_output: bool) -> Iterator[Progress]:
    """A progress function: a bar on an interactive terminal, a line a new stage on a plain one, nothing with --json."""
    if json_output:
        yield quiet
    elif sys.stderr.isatty():
        with _bar() as told:
            yield told
    else:
        yield _lines()


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def told(stage: str, share: float) -> None:
            whose = _whose(stage)
            if whose not in tasks:
                tasks[whose] = bar.add_task(stage, total=1.0)
            bar.update(tasks[whose], description=stage, completed=share)

        yield told


def _whose(stage: str) -> str:
    """Who tells a stage: `demand: features` is told by demand; several may go on at once."""
    return stage.partition(": ")[0] if ": " in stage else ""


def _lines() -> Progress:
    last: dict[str, str] = {}

    def line(stage: str, _share: float) -> None:
        # A stage that counts days says so once a month: a log is read afterwards.
        head = stage[: stage.rfind("-")] if stage[-3:-2] == "-" else stage
        if last.get(_whose(stage)) != head:
            last[_whose(stage)] = head
            sys.stderr.write(f"{head}\n")
            sys.stderr.flush()

    return line


def no_vendor_warnings() -> None:
    """Keep vendors' deprecation warnings and MLflow's chatter off a user's terminal; our own are still shown."""
    ours, show = Path(__file__).resolve().parents[1], warnings.showwarning

    def only_ours(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        if not issubclass(category, DeprecationWarning) or Path(filename).parent.parent == ours:
            show(message, category, filename, lineno, file, line)

    warnings.showwarning = only_ours
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    logging.getLogger("alembic").setLevel(logging.WARNING)


def emit(value: dict[str, Any], *, json_output: bool, title: str = "") -> None:
    """Print a result: one JSON object with --json, otherwise a table of names and values."""
    if json_output:
        sys.stdout.write(json.dumps(value, indent=2, sort_keys=False, default=str) + "\n")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")  # a hash is there to be copied
    for name, item in flat(value):
        table.add_row(name, item)
    Console().print(table)


def flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as (dotted name, text), in order."""
    for name, item in value.items():
        if isinstance(item, dict):
            yield from flat(item, f"{prefix}{name}.")
        elif isinstance(item, float):
            yield f"{prefix}{name}", f"{item:.4g}"
        elif isinstance(item, (list, tuple)):
            yield f"{prefix}{name}", "; ".join(str(part) for part in item)
        else:
            yield f"{prefix}{name}", str(item)
