"""Policies as tested code: `seatrial policy ...`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lifecycle.commands.options import DryRun, Json, Model

if TYPE_CHECKING:
    from contracts.policy import Policy
    from lifecycle.workspace import Workspace

policy_app = typer.Typer(no_args_is_help=True, help="A model's policy: check it, compare it, try it on history.")


@policy_app.command("check")
def check(
    which: Annotated[
        list[str] | None, typer.Argument(help="Models or policy files; all of the workspace by default.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Let warnings fail the check too.")] = False,
    json_output: Json = False,
) -> None:
    """Say what is wrong with a policy: schema, names, steps that cannot be reached, unsafe combinations.

    Ends with exit code 1 when anything is an error.
    """
    from lifecycle.policy_checks import as_lines, as_plain, check_file
    from lifecycle.policy_files import policy_file, policy_files
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace

    ws = Workspace()
    paths = [policy_file(ws, named) for named in which] if which else policy_files(ws)
    checked = [check_file(ws, path) for path in paths]
    if json_output:
        emit(as_plain(checked, strict=strict), json_output=True)
    else:
        typer.echo("\n".join(as_lines(checked)))
    raise typer.Exit(1 if any(one.failed(strict=strict) for one in checked) else 0)


@policy_app.command("diff")
def diff(
    old: Annotated[
        str, typer.Argument(help="A policy file or a model; alone, a model's policy on record against its file.")
    ],
    new: Annotated[str | None, typer.Argument(help="A policy file or a model, for its present file.")] = None,
    json_output: Json = False,
) -> None:
    """Say key by key what changed between two policies, and whether it is stricter or looser."""
    from rich.console import Console

    from lifecycle.policy_tables import diff_table
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace
    from registry.policy_diff import policy_diff

    ws = Workspace()
    (before, was), (after, becomes) = _two(ws, old, new)
    changes = policy_diff(before, after)
    if json_output:
        told = [{**vars(change), "way": change.way.value} for change in changes]
        emit({"old": was, "new": becomes, "changes": told}, json_output=True)
    elif not changes:
        typer.echo(f"{was} and {becomes} decide the same")
    else:
        Console().print(diff_table(changes, was, becomes))


def _two(ws: Workspace, old: str, new: str | None) -> tuple[tuple[Policy, str], tuple[Policy, str]]:
    """Both policies with where they come from."""
    from contracts.errors import UsageError
    from contracts.policy import load_policy
    from lifecycle.policy_files import policy_file, recorded_policy

    if new is not None:
        first, second = policy_file(ws, old), policy_file(ws, new)
        return (load_policy(first), str(first)), (load_policy(second), str(second))
    if Path(old).is_file():
        raise UsageError(f"compare {old} with what? name a second file, or a model in place of the file")
    path = policy_file(ws, old)
    now = load_policy(path)
    recorded = recorded_policy(ws, now.model)
    return (recorded.policy, recorded.record), (now, str(path))


@policy_app.command("replay")
def replay(
    model: Model,
    policy: Annotated[
        Path | None, typer.Option("--policy", help="The policy file to try; the model's present one by default.")
    ] = None,
    since: Annotated[str, typer.Option("--from", help="A day or time with a zone; the first version by default.")] = "",
    until: Annotated[str, typer.Option("--to", help="A day or time with a zone; the end of history by default.")] = "",
    approve_after: Annotated[
        str, typer.Option(help="Suppose that people agree so long after they were asked, like 2d; else as recorded.")
    ] = "",
    only_asked: Annotated[
        bool, typer.Option("--only-asked", help="Leave out candidates that this policy would not have trained.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Run recorded history through a policy: what would have been promoted, held, retrained, and at what loss and cost.

    Nothing is changed. The policy on record is replayed beside it, which says how far the answer can be trusted.
    """
    from rich.console import Console

    from contracts.times import parse_duration
    from lifecycle.policy_replay import as_plain, replay_policy
    from lifecycle.policy_replay_course import Suppose
    from lifecycle.policy_tables import replay_page
    from lifecycle.terminal import emit, progress_bar
    from lifecycle.workspace import Workspace

    ws = Workspace()
    wanted = _to_try(ws, model, policy)
    after = parse_duration(approve_after) if approve_after else None
    with progress_bar(json_output=json_output) as progress:
        found = replay_policy(
            ws, wanted, since=_moment(since), until=_moment(until),
            suppose=Suppose(after, only_asked), progress=progress,
        )  # fmt: skip
    if json_output:
        emit(as_plain(found), json_output=True)
    else:
        Console().print(replay_page(found))


def _to_try(ws: Workspace, model: str, path: Path | None) -> Policy:
    """The policy to replay, which has to be of the model."""
    from contracts.errors import UsageError
    from contracts.policy import load_policy

    if path is None:
        return ws.policy(model)
    found = load_policy(path)
    if found.model != model.replace("-", "_"):
        raise UsageError(f"{path} is the policy of {found.model}, wanted one of {model}")
    return found


def _moment(text: str) -> datetime | None:
    from contracts.times import parse_time

    return parse_time(text) if text else None


@policy_app.command("adopt")
def adopt(
    model: Model,
    reason: Annotated[str, typer.Option(help="Why, in a sentence; it goes into the ledger.")],
    json_output: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Record the model's present policy file in the ledger as the policy in force; refused while it has errors."""
    from contracts.errors import CheckFailed
    from lifecycle.policy_checks import as_lines, check_file
    from lifecycle.policy_files import policy_file
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace

    ws = Workspace()
    wanted = ws.policy(model)
    checked = check_file(ws, policy_file(ws, wanted.model))
    if checked.failed(strict=False):
        raise CheckFailed(
            "\n".join([f"the policy of {wanted.model} has errors; nothing was recorded", *as_lines([checked])])
        )
    state = ws.registrar.state(wanted.model) if dry_run else ws.registrar.record_policy(wanted, reason, adopt=True)
    said = {"model": wanted.model, "policy_hash": wanted.hash, "revision": state.revision}
    emit({"dry_run": dry_run, **said}, json_output=json_output)
