"""The serving snapshot: the one file that tells a server what to serve; a projection of the ledger, rebuilt at will."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from contracts.canonical import content_hash
from contracts.errors import InputInvalid
from contracts.policy import Kind, Name, Policy, Share
from contracts.rollout import Stage
from contracts.yaml_file import Strict
from registry.durable import replace_file

SNAPSHOT_FORMAT = 1
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Deployed(Strict):
    """One version that a server may load: `folder` is relative to the artifacts root, always with `/`."""

    version: str
    manifest_sha256: Sha256
    folder: str
    trained_until: datetime | None = None

    @field_validator("folder")
    @classmethod
    def _inside(cls, value: str) -> str:
        parts = PurePosixPath(value).parts
        if not parts or value.startswith("/") or ".." in parts or "\\" in value or "\0" in value or ":" in value:
            raise ValueError("a folder inside the artifacts root")
        return value


class ServingSnapshot(Strict):
    """Everything a server needs to know of one model, so that it serves on while ledger and MLflow are away.

    `revision`, `ledger_head`: the newest ledger row this was made from (its hash: an anchor outside the ledger);
    `share`: the challenger's share of decisions in [0, 1], above 0 only in stage canary; `salt`: for the sticky
    split, another for each challenger; `challenger`: what to shadow or canary, None otherwise; `stopped`: why no
    version may answer (the kill switch), empty when they may; files from before there was one read as empty.
    """

    format: Literal[1] = 1
    model: Name
    kind: Kind
    revision: Annotated[int, Field(ge=0)]
    policy: Policy
    policy_hash: str
    features: str
    champion: Deployed | None = None
    previous_champion: Deployed | None = None
    challenger: Deployed | None = None
    stage: Stage = Stage.NONE
    share: Share = 0.0
    salt: str
    written_at: datetime
    ledger_head: str = ""
    stopped: str = ""

    @model_validator(mode="after")
    def _holds_together(self) -> ServingSnapshot:
        same = self.policy.model == self.model and self.policy.kind == self.kind
        if not same or self.policy_hash not in _hashes(self.policy):
            raise ValueError("the policy of this model, with its hash")
        if self.share > 0 and (self.champion is None or self.challenger is None or self.stage is not Stage.CANARY):
            raise ValueError("a share only in stage canary, with champion and challenger")
        return self

    def says_the_same_as(self, other: ServingSnapshot) -> bool:
        """True when both differ in nothing but when they were written."""
        return self == other.model_copy(update={"written_at": self.written_at})


def _hashes(policy: Policy) -> tuple[str, str]:
    """The policy's hash, and the one that 0.1.0 gave: over every setting that it knew, all of which it wrote out."""
    return policy.hash, content_hash(policy.model_dump(mode="json", exclude_unset=True))


def snapshot_path(folder: Path, model: str) -> Path:
    """Where the snapshot of `model` lies in the folder of snapshots."""
    return folder / f"{model}.json"


def write_snapshot(path: Path, snapshot: ServingSnapshot) -> None:
    """Replace the file at `path` in one durable step; readers see the old snapshot or the new."""
    replace_file(path, snapshot.model_dump_json(indent=1).encode())


def read_snapshot(path: Path) -> ServingSnapshot:
    """The snapshot at `path`.

    Raises:
        InputInvalid: no such file, another format, or not what a snapshot must be.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputInvalid(str(path), "a serving snapshot", error.strerror or str(error)) from None
    try:
        return ServingSnapshot.model_validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputInvalid(
            str(path),
            f"a serving snapshot of format {SNAPSHOT_FORMAT}",
            f"{where}: {first['msg']}",
            hint="run `seatrial reconcile` to rebuild it from the ledger",
        ) from None
