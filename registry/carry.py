"""A version on its way to another environment: its sealed files, the whole ledger of its model, and who packed it."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from contracts.canonical import canonical_json
from contracts.environments import Reached
from contracts.errors import CheckFailed, InputInvalid, LedgerBroken, UsageError
from contracts.rollout import LedgerRow, Outcome, RolloutState, RowKind
from contracts.times import iso
from registry.artifacts import ArtifactStore, verify
from registry.durable import replace_file, sync_folder
from registry.fold import fold
from registry.ledger import Anchor, export, head, read_export
from registry.ledger import verify as verify_chain

CARRIED_FORMAT = 1
_PARTS = ("artifact", "ledger.jsonl", "carried.json")
_THROWN = (RowKind.REJECTED, RowKind.ROLLED_BACK)
_TEXTS = ("model", "version", "environment", "packed_by", "packed_at", "head")


@dataclass(frozen=True)
class Carried:
    """An opened bundle, checked.

    `rows`: the model's whole chain in the environment that it comes from; `state`: folded from them; `registered`: the
    version's first row; `rival`: manifest hash of the champion that its backtest was held against, None when nobody
    served there yet.
    """

    model: str
    version: str
    environment: str
    artifact: Path
    manifest_sha256: str
    rows: tuple[LedgerRow, ...]
    state: RolloutState
    registered: LedgerRow
    rival: str | None

    @property
    def head(self) -> Anchor:
        """The newest row of the chain that it comes from."""
        return head(self.rows, self.model)

    def facts(self) -> dict[str, Any]:
        """Where the version comes from, as plain values for the ledger that takes it."""
        own = [row for row in self.rows if row.version == self.version]
        return {
            "environment": self.environment,
            "version": self.version,
            "head": str(self.head),
            "authors": sorted(self.state.registered[self.version].authors),
            "rows": [{"revision": r.revision, "kind": r.kind.value, "at": iso(r.at), "hash": r.hash} for r in own],
        }


def pack(
    rows: Sequence[LedgerRow],
    artifacts: ArtifactStore,
    version: str,
    out: Path,
    *,
    environment: str,
    actor: str,
    now: datetime,
) -> Path:
    """Write a version with its evidence as a folder that another environment can take.

    Args:
        rows: the model's whole chain; it is verified first.
        artifacts: where the version's files are; they are verified.
        version: which.
        out: a new folder; it appears whole or not at all.
        environment, actor, now: where, by whom and when it is packed.

    Raises:
        LedgerBroken, ArtifactRefused: what would be packed does not hold.
        UsageError: the version was not registered, or `out` exists.
    """
    verify_chain(rows)
    state = fold(rows)
    if version not in state.manifests:
        raise UsageError(f"{state.model} {version}: wanted a registered version, known: {', '.join(state.manifests)}")
    if out.exists():
        raise UsageError(f"{out}: wanted a new folder, something is there; name another one")
    source = artifacts.path(state.model, version)
    verify(source, state.manifests[version])
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        shutil.copytree(source, temporary / "artifact")
        replace_file(temporary / "ledger.jsonl", export(rows).encode())
        label = {
            "format": CARRIED_FORMAT,
            "model": state.model,
            "version": version,
            "environment": environment,
            "packed_by": actor,
            "packed_at": iso(now),
            "head": str(head(rows, state.model)),
        }
        replace_file(temporary / "carried.json", canonical_json(label).encode())
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(out.parent)
    return out


def open_bundle(folder: Path, *anchors: Anchor) -> Carried:
    """A packed version, with its files and its chain verified.

    A bundle proves that it is whole, not where it comes from: `anchors` are places of the chain that are known from
    elsewhere (a report of the environment that it comes from) and must be in it.

    Raises:
        InputInvalid: not a bundle. LedgerBroken: the chain in it does not hold, or is not the one that was packed.
        ArtifactRefused: its files are not what its ledger recorded.
    """
    missing = [part for part in _PARTS if not (folder / part).exists()]
    if missing:
        raise InputInvalid(str(folder), "a packed version (seatrial environment pack)", f"no {missing[0]} in it")
    label = _label(folder / "carried.json")
    model, version = label["model"], label["version"]
    rows = read_export((folder / "ledger.jsonl").read_text(encoding="utf-8"))
    try:
        name, revision, digest = label["head"].split(" ")
        anchor = Anchor(name, int(revision), digest)
    except ValueError:
        raise InputInvalid(str(folder / "carried.json"), "a head: model, revision, hash", label["head"]) from None
    if not rows or rows[0].model != model:
        raise LedgerBroken(model, 1, f"the bundle of {model} holds no row of it")
    verify_chain(rows, anchor, *anchors)
    state = fold(rows)
    if version not in state.manifests:
        raise LedgerBroken(model, len(rows), f"{version} was never registered in it")
    manifest = state.manifests[version]
    verify(folder / "artifact", manifest)
    registered = next(row for row in rows if row.kind is RowKind.REGISTERED and row.version == version)
    then = fold(rows[: registered.revision])
    rival = then.manifests.get(then.champion) if then.champion else None
    return Carried(model, version, label["environment"], folder / "artifact", manifest, rows, state, registered, rival)


def _label(path: Path) -> dict[str, str]:
    try:
        label = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputInvalid(str(path), "JSON", str(error)) from None
    if not isinstance(label, dict) or label.get("format") != CARRIED_FORMAT:
        raise InputInvalid(str(path), f"a bundle of format {CARRIED_FORMAT}", "another one")
    if not all(isinstance(label.get(name), str) for name in _TEXTS):
        raise InputInvalid(str(path), f"texts for {', '.join(_TEXTS)}", "something else")
    return {name: label[name] for name in _TEXTS}


def must_have_reached(carried: Carried, wanted: Reached) -> None:
    """Refuse a version that did not get far enough where it comes from.

    Raises:
        CheckFailed: says how far it got.
    """
    gate = carried.state.gates.get(carried.version)
    crowned = any(row.kind is RowKind.PROMOTED and row.version == carried.version for row in carried.rows)
    thrown = [row for row in carried.rows if row.version == carried.version and row.kind in _THROWN]
    where = f"{carried.model} {carried.version} of {carried.environment or 'its environment'}"
    if gate != Outcome.PASS:
        raise CheckFailed(f"{where}: wanted a passing gate there, it says {gate or 'nothing'}")
    if thrown:
        how = thrown[-1].kind.replace("_", " ")
        raise CheckFailed(f"{where}: it was {how} there ({thrown[-1].reason}) and is not carried on; train another")
    if wanted == "champion" and not crowned:
        raise CheckFailed(f"{where}: wanted a version that was champion there, it never was")
