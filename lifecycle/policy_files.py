"""Where policies are: in files, by model, and on record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from contracts.errors import InputInvalid, UnknownName
from contracts.policy import Policy
from contracts.rollout import RowKind
from lifecycle.workspace import Workspace
from registry.snapshot import read_snapshot, snapshot_path


@dataclass(frozen=True)
class Recorded:
    """The policy that decisions are made under, where it was found (in words), and how many were recorded."""

    policy: Policy
    record: str
    changes: int


def policy_file(ws: Workspace, named: str) -> Path:
    """The file that a path or a model's name means; a model's file is named after it.

    Raises:
        UnknownName: neither a file nor a model of the workspace.
    """
    if Path(named).is_file():
        return Path(named)
    folder = ws.settings.policies
    path = folder / f"{named.replace('-', '_')}.yaml"
    if not path.is_file():
        raise UnknownName("policy", named, sorted(one.stem for one in folder.glob("*.yaml")))
    return path


def policy_files(ws: Workspace) -> list[Path]:
    """Every policy file of the workspace.

    Raises:
        InputInvalid: there is no folder of policies.
    """
    folder = ws.settings.policies
    if not folder.is_dir():
        raise InputInvalid(str(folder), "a folder of policy files", "no such folder", hint="set SEATRIAL_POLICIES")
    return sorted(folder.glob("*.yaml"))


def recorded_policy(ws: Workspace, model: str) -> Recorded:
    """The policy on record: the ledger's newest, or else the one in the serving snapshot.

    Raises:
        InputInvalid: neither holds one.
    """
    rows = ws.ledger.rows(model) if ws.settings.home.exists() else ()
    changes = [row for row in rows if row.kind is RowKind.POLICY_CHANGED and "policy" in row.payload]
    if changes:
        words = f"ledger revision {changes[-1].revision} of {changes[-1].at:%Y-%m-%d}"
        return Recorded(Policy.model_validate(changes[-1].payload["policy"]), words, len(changes))
    try:
        shot = read_snapshot(snapshot_path(ws.settings.serving, model))
    except InputInvalid:
        hint = f"record the present one: seatrial policy adopt {model}"
        raise InputInvalid(f"ledger of {model}", "a recorded policy", "none", hint=hint) from None
    return Recorded(shot.policy, f"serving snapshot of ledger revision {shot.revision}", 1)
