"""Checks of policy files: the schema first, then everything that a schema cannot know, each with its line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import ConfigInvalid, InputInvalid
from contracts.policy import load_policy
from contracts.yaml_file import line_of
from lifecycle.policy_around import surroundings
from lifecycle.workspace import Workspace
from registry.policy_check import policy_check
from registry.policy_findings import PolicyFinding, Severity, error


@dataclass(frozen=True)
class CheckedFile:
    """One policy file's findings, each with its line (None where the key is left to its default)."""

    file: Path
    model: str
    findings: tuple[tuple[PolicyFinding, int | None], ...]

    def count(self, severity: Severity) -> int:
        """How many findings are of a severity."""
        return sum(found.severity is severity for found, _ in self.findings)

    def failed(self, *, strict: bool) -> bool:
        """Whether the file may not be used: an error, or, when `strict`, a warning."""
        return bool(self.count(Severity.ERROR) or (strict and self.count(Severity.WARNING)))


def check_file(ws: Workspace, path: Path) -> CheckedFile:
    """Everything that speaks against a policy file.

    A file that breaks the schema has that one finding: nothing more can be said of it.
    """
    try:
        policy = load_policy(path)
    except ConfigInvalid as broken:
        what = f"wanted {broken.wanted}, got {broken.got}"
        found = error("schema", broken.key, what, "the file cannot be read as a policy", broken.hint or broken.wanted)
        return CheckedFile(path, path.stem, ((found, broken.line),))
    except InputInvalid as broken:
        found = error("unreadable", "(file)", str(broken), "the file cannot be read at all", "mend the file")
        return CheckedFile(path, path.stem, ((found, None),))
    findings = policy_check(policy, surroundings(ws, policy))
    return CheckedFile(path, policy.model, tuple((found, line_of(path, found.key)) for found in findings))


def as_plain(checked: list[CheckedFile], *, strict: bool) -> dict[str, Any]:
    """The checks as one JSON object."""
    return {
        "passed": not any(one.failed(strict=strict) for one in checked),
        "files": [
            {
                "file": str(one.file),
                "model": one.model,
                "errors": one.count(Severity.ERROR),
                "warnings": one.count(Severity.WARNING),
                "notes": one.count(Severity.NOTE),
                "findings": [
                    {**vars(found), "severity": found.severity.value, "line": line} for found, line in one.findings
                ],
            }
            for one in checked
        ],
    }


def as_lines(checked: list[CheckedFile]) -> list[str]:
    """The checks as lines for a person, one finding in three lines, and a sum for each file."""
    lines = []
    for one in checked:
        for found, line in one.findings:
            where = f"{one.file}:{line}" if line else f"{one.file}"
            lines += [
                f"{where}: {found.severity}: {found.key}: {found.what}",
                f"    why: {found.why}",
                f"    do:  {found.do}",
            ]
        sums = [(one.count(kind), kind.value) for kind in Severity]
        told = ", ".join(f"{number} {name}{'' if number == 1 else 's'}" for number, name in sums)
        lines.append(f"{one.file}: {told}")
    return lines
