"""The doctor: looks at everything that a workspace stands on and says what is wrong and what to do about it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from contracts.errors import DependencyDown, SeatrialError
from contracts.policy import Policy
from contracts.rollout import RolloutState
from contracts.times import SystemClock
from lifecycle.workspace import Workspace
from registry.access import Role

if TYPE_CHECKING:
    from registry.snapshot import ServingSnapshot

Level = Literal["ok", "warning", "wrong", "down"]
LITTLE_SPACE = 1_000_000_000  # bytes
SOON = timedelta(days=14)
_USED = ("champion", "previous_champion", "challenger")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: how it is, in words, and what to do when it is not well."""

    subject: str
    level: Level
    words: str
    remedy: str = ""


def examine(ws: Workspace) -> Iterator[Finding]:
    """Look at the whole workspace, the cheap and basic things first; nothing is changed and nothing raises."""
    looks: list[tuple[str, Callable[[Workspace], Iterator[Finding]]]] = [
        ("policies", _policies),
        ("features", _features),
        ("disk", _disk),
        ("access", _access),
        ("ledger", _ledger),
        ("online store", _online),
        ("models", _models),
        ("mlflow", _mlflow),
        ("events out", _events),
    ]
    for subject, look in looks:
        try:
            yield from look(ws)
        except DependencyDown as error:
            yield Finding(subject, "down", str(error), "start it, or name another one in the settings")
        except SeatrialError as error:
            yield Finding(subject, "wrong", str(error))
        except OSError as error:
            yield Finding(subject, "wrong", f"{type(error).__name__}: {error}", "look at the file's owner and rights")


def _policies(ws: Workspace) -> Iterator[Finding]:
    names = ", ".join(ws.policies) or "none"
    level: Level = "ok" if ws.policies else "warning"
    yield Finding("policies", level, f"{names} in {ws.settings.policies}", "" if ws.policies else "add a policy file")


def _features(ws: Workspace) -> Iterator[Finding]:
    for policy in ws.policies.values():
        digest = ws.features_hash(policy)
        yield Finding(f"features of {policy.model}", "ok", f"{policy.features}, {digest[:12]}")


def _disk(ws: Workspace) -> Iterator[Finding]:
    home = ws.settings.home
    if not home.exists():
        yield Finding("workspace", "warning", f"{home} is not there yet", "ingest data, or run the demo")
        return
    free = shutil.disk_usage(home).free
    level: Level = "ok" if free >= LITTLE_SPACE else "warning"
    yield Finding("disk", level, f"{free / 1e9:.1f} GB free at {home}", "" if level == "ok" else "make room")


def _access(ws: Workspace) -> Iterator[Finding]:
    if ws.settings.access == "open":
        words = "open: whoever reaches the workspace may do everything; the service stays on loopback"
        yield Finding("access", "warning", words, "SEATRIAL_ACCESS=required and `seatrial access issue`")
        return
    now = SystemClock().now()
    keys = [key for key in ws.keys.known().keys.values() if key.state(now) == "active"]
    admins = [key for key in keys if Role.ADMIN in key.roles]
    lasting = [key for key in admins if key.expires_at - now > SOON]
    words = f"required; {len(keys)} keys are active, {len(admins)} of an admin"
    remedy = "" if lasting else "issue an admin's key that lasts: seatrial access issue"
    yield Finding("access", "ok" if lasting else "warning", words, remedy)


def _ledger(ws: Workspace) -> Iterator[Finding]:
    from registry.anchors import check_chains, read_anchors

    chains = check_chains(ws.ledger, read_anchors(ws.settings.anchor_file))
    for chain in chains:
        subject = f"ledger of {chain.model}"
        if chain.broken:
            yield Finding(subject, "wrong", chain.broken, "restore it from a backup: seatrial ledger restore")
            continue
        level: Level = "ok" if chain.anchors else "warning"
        remedy = "" if chain.anchors else "nothing outside the ledger says where it ended; its next row will"
        words = f"{chain.rows} rows, chain holds, {chain.anchors} anchors agree"
        yield Finding(subject, level, words, remedy)
    if not chains:
        yield Finding("ledger", "ok", "empty")


def _online(ws: Workspace) -> Iterator[Finding]:
    if not ws.settings.online_url and not ws.settings.online.exists():
        yield Finding("online store", "warning", "empty", "it is filled when features are built")
        return
    views = {view for policy in ws.policies.values() for view in ws.declarations.services[policy.features].views}
    written = [view for view in sorted(views) if ws.online.mark(view) is not None]
    level: Level = "ok" if len(written) == len(views) else "warning"
    remedy = "" if level == "ok" else f"not filled: {', '.join(sorted(views - set(written)))}; ingest or build features"
    yield Finding("online store", level, f"{len(written)} of {len(views)} views are filled", remedy)


def _models(ws: Workspace) -> Iterator[Finding]:
    for policy in ws.policies.values():
        state = ws.registrar.state(policy.model)
        if state.revision == 0:
            yield Finding(policy.model, "ok", "nothing registered yet")
            continue
        yield from _files(ws, state)
        yield from _served(ws, policy, state)
    for model in ws.ledger.models():
        if model not in ws.policies and not model.startswith("_"):
            words = f"the ledger holds it, and no policy in {ws.settings.policies} is of it: nobody watches or moves it"
            yield Finding(model, "warning", words, "put its policy file back")
            yield from _files(ws, ws.registrar.state(model))


def _files(ws: Workspace, state: RolloutState) -> Iterator[Finding]:
    """Whether the files of every version in use are there and are what was sealed."""
    from registry.artifacts import verify

    for role in _USED:
        version = getattr(state, role)
        if version is None:
            continue
        try:
            verify(ws.artifacts.path(state.model, version), state.manifests[version])
        except SeatrialError as error:
            remedy = "restore its folder from a backup, or roll back: seatrial rollout rollback"
            yield Finding(f"{state.model} {version} ({role})", "wrong", str(error), remedy)
        else:
            yield Finding(f"{state.model} {version} ({role})", "ok", "its files are what was sealed")


def _served(ws: Workspace, policy: Policy, state: RolloutState) -> Iterator[Finding]:
    """Whether the snapshot that servers read says what the ledger says."""
    found: ServingSnapshot | None = ws.registrar.projection.snapshot(policy.model)
    subject, mend = f"{policy.model} in service", "seatrial reconcile"
    if found is None:
        yield Finding(subject, "wrong", "there is no readable serving snapshot", mend)
    elif found.revision != state.revision:
        words = f"the snapshot is of revision {found.revision}, the ledger has {state.revision}"
        yield Finding(subject, "wrong", words, mend)
    elif not ws.registrar.projection.agrees(found):
        yield Finding(subject, "wrong", "the snapshot says otherwise than the ledger of the same revision", mend)
    elif found.policy_hash != policy.hash:
        words = f"serving follows policy {found.policy_hash[:12]}, the file says {policy.hash[:12]}"
        remedy = (
            f"look: seatrial policy diff {policy.model}; take it: seatrial policy adopt {policy.model} --reason WHY"
        )
        yield Finding(subject, "warning", words, remedy)
    else:
        who = found.champion.version if found.champion else "nobody"
        yield Finding(subject, "ok", f"{who} serves, as the ledger says")


def _mlflow(ws: Workspace) -> Iterator[Finding]:
    from registry.mlflow_store import MlflowProjection

    mlflow = MlflowProjection(ws.settings.tracking)
    for policy in ws.policies.values():
        state = ws.registrar.state(policy.model)
        if state.revision == 0:
            continue
        words = mlflow.differences(state)
        for one in words:
            remedy = "seatrial reconcile puts it right; `--adopt` takes up an alias where the rules allow it"
            yield Finding(f"MLflow's {policy.model}", "wrong", one, remedy)
        if not words:
            yield Finding(f"MLflow's {policy.model}", "ok", "shows what the ledger says")


def _events(ws: Workspace) -> Iterator[Finding]:
    if not ws.settings.events.exists():
        yield Finding("events out", "ok", "no events file: nothing is sent")
        return
    from lifecycle.sending import load_targets, opened
    from registry.dispatch import wanted_by

    with opened(ws.settings) as outbox:
        for target in load_targets(ws.settings, None):
            counts = outbox.counts(wanted_by(target))
            level: Level = "wrong" if counts["dead"] else "ok"
            remedy = "seatrial outbox list --state dead, then seatrial outbox retry" if counts["dead"] else ""
            words = f"{counts['pending']} wait, {counts['delivered']} were delivered, {counts['dead']} are dead"
            yield Finding(f"events to {target.name}", level, words, remedy)
