"""An export of the ledger checked and put back: what it holds, what it lacks, and whether the models are all there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.errors import ArtifactRefused, Conflict, InputInvalid, LedgerBroken
from contracts.rollout import LedgerRow, Outcome, RowKind
from registry.artifacts import ArtifactStore
from registry.artifacts import verify as verify_artifact
from registry.fold import fold
from registry.ledger import Anchor, Ledger, head, verify


@dataclass(frozen=True)
class Restorable:
    """An export that holds: its rows by model, how many rows each lacks, and the versions in use that were checked.

    `lost`: model -> rows that the anchors know of and the export does not hold; `versions`: model -> in use.
    """

    rows: dict[str, tuple[LedgerRow, ...]]
    lost: dict[str, int]
    versions: dict[str, tuple[str, ...]]

    @property
    def heads(self) -> tuple[Anchor, ...]:
        """Where each chain ends, chains that are lost altogether included."""
        return tuple(head(self.rows.get(model, ()), model) for model in sorted({*self.rows, *self.lost}))


def restorable(rows: Sequence[LedgerRow], anchors: Sequence[Anchor], artifacts: ArtifactStore | None) -> Restorable:
    """Check an export before anything is written.

    Args:
        rows: what `read_export` gave, of all models.
        anchors: what was kept outside the ledger. One within the export must agree with it; one after its end says how
            many rows are lost.
        artifacts: where the sealed models lie; None leaves them unchecked.

    Raises:
        InputInvalid: there is no row.
        LedgerBroken: a chain does not hold, contradicts an anchor, or has a promotion without a passing gate.
        ArtifactRefused: a version in use (champion, the one before, challenger) has no files or not those sealed.
    """
    if not rows:
        raise InputInvalid("ledger export", "rows of at least one model", "none")
    chains: dict[str, list[LedgerRow]] = {}
    for row in rows:
        chains.setdefault(row.model, []).append(row)
    lost: dict[str, int] = {}
    for anchor in anchors:
        over = anchor.revision - len(chains.get(anchor.model, ()))
        lost[anchor.model] = max(lost.get(anchor.model, 0), over)
    versions = {}
    for model, chain in sorted(chains.items()):
        verify(chain, *[a for a in anchors if a.model == model and a.revision <= len(chain)])
        versions[model] = _in_use(chain, model, artifacts)
    kept = {model: tuple(chain) for model, chain in sorted(chains.items())}
    return Restorable(kept, {model: count for model, count in lost.items() if count > 0}, versions)


def already_there(ledger: Ledger, found: Restorable) -> bool:
    """True when the ledger holds just these rows: an earlier restore got so far; False when it is empty.

    Raises:
        Conflict: it holds other rows.
    """
    held = {model: ledger.rows(model) for model in ledger.models()}
    if held and held != found.rows:
        count = sum(len(rows) for rows in held.values())
        raise Conflict(f"the ledger holds {count} other rows; an export is restored only into an empty one")
    return bool(held)


def _in_use(chain: Sequence[LedgerRow], model: str, artifacts: ArtifactStore | None) -> tuple[str, ...]:
    state = fold(chain, model)
    _gated(chain, model)
    used = tuple(v for v in dict.fromkeys((state.champion, state.previous_champion, state.challenger)) if v)
    if artifacts is None:
        return used
    for version in used:
        try:
            verify_artifact(artifacts.path(model, version), state.manifests[version])
        except (OSError, ArtifactRefused) as error:
            why = error.why if isinstance(error, ArtifactRefused) else error.strerror or str(error)
            raise ArtifactRefused(f"{model} {version}", f"{why}; copy the artifacts folder first") from None
    return used


def _gated(chain: Sequence[LedgerRow], model: str) -> None:
    passed: set[str] = set()
    for row in chain:
        if row.kind is RowKind.GATED and row.payload.get("outcome") == Outcome.PASS:
            passed.add(row.version)
        if row.kind is RowKind.PROMOTED and row.version not in passed:
            raise LedgerBroken(model, row.revision, f"{row.version} was promoted without a gate that passed")
