"""Verdicts of past windows on disk: one JSON line a window, newest line of a window counts."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from contracts.canonical import canonical_json
from contracts.monitoring import Finding, Health, WindowVerdict
from contracts.times import parse_time

VERDICT_FORMAT = 1


class VerdictLog:
    """The windows of one model, `<folder>/<model>.jsonl`; one writer at a time.

    Args:
        folder: `home/monitor`; made at the first append.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self.path = Path(folder) / f"{model}.jsonl"
        self._known: dict[tuple[str, datetime], WindowVerdict] | None = None

    def verdicts(self, version: str | None = None) -> list[WindowVerdict]:
        """All windows, or those of one version, by end."""
        found = sorted(self._all().values(), key=lambda verdict: (verdict.end, verdict.version))
        return [verdict for verdict in found if version in (None, verdict.version)]

    def append(self, verdict: WindowVerdict) -> None:
        """Keep a verdict; the same window judged again replaces the earlier word."""
        known = self._all()
        if known.get((verdict.version, verdict.end)) == verdict:
            return
        known[(verdict.version, verdict.end)] = verdict
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = canonical_json({"format": VERDICT_FORMAT, **asdict(verdict)}) + "\n"
        torn = self.path.exists() and self.path.stat().st_size > 0 and not _ends_line(self.path)
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        try:
            os.write(file, ("\n" + line if torn else line).encode())
        finally:
            os.close(file)

    def _all(self) -> dict[tuple[str, datetime], WindowVerdict]:
        if self._known is None:
            self._known = {}
            for line in self.path.read_text(encoding="utf-8").split("\n") if self.path.exists() else ():
                verdict = _read(line)
                if verdict is not None:
                    self._known[(verdict.version, verdict.end)] = verdict
        return self._known


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _read(line: str) -> WindowVerdict | None:
    """The verdict of a line, None for a torn one or a format that is not ours."""
    try:
        tree: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    if tree.pop("format", None) != VERDICT_FORMAT:
        return None
    findings = tuple(_finding(item) for item in tree.pop("findings"))
    start, end = parse_time(tree.pop("start")), parse_time(tree.pop("end"))
    return WindowVerdict(start=start, end=end, health=Health(tree.pop("health")), findings=findings, **tree)


def _finding(item: dict[str, Any]) -> Finding:
    value, bound = (float("nan") if item[name] is None else float(item[name]) for name in ("value", "bound"))
    return Finding(item["kind"], item["subject"], value, bound, item["words"])
