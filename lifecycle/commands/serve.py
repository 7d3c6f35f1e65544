"""Answers: `seatrial serve`, `seatrial shadow`, `seatrial replay`."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from lifecycle.commands.options import Json

if TYPE_CHECKING:
    from contracts.settings import Settings


def serve(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 3000,
    host: Annotated[str, typer.Option(help="Loopback; another only with SEATRIAL_ACCESS=required.")] = "127.0.0.1",
    at: Annotated[str, typer.Option(help="Fix the service's clock at this time (ISO 8601): for rehearsals.")] = "",
) -> None:
    """Serve this workspace through BentoML.

    A demo's workspace holds history, to which today's clock would answer that everything is stale: there the clock
    stands at the demo's end unless --at or SEATRIAL_CLOCK says otherwise.
    """
    from contracts.times import iso, parse_time
    from lifecycle.demo_state import demo_end
    from lifecycle.http_check import service_command, service_environment
    from lifecycle.workspace import Workspace

    settings = Workspace().settings
    _may_listen(settings, host)
    named = at or settings.clock
    now = parse_time(named, "--at") if named else demo_end(settings)
    clock = f", its clock fixed at {iso(now)}" if now else ""
    typer.echo(f"serving {settings.home} on http://{host}:{port}{clock} (API: /openapi.json)", err=True)
    command, environment = service_command(port, host), service_environment(settings, now)
    environment.pop("SEATRIAL_KEY", None)  # the service checks keys, it needs none
    os.execvpe(command[0], command, environment)


def _may_listen(settings: Settings, host: str) -> None:
    """Refuse to listen where others reach the service while everybody may do everything, or with half an issuer.

    Raises:
        UsageError: access is open and the host is no loopback address. ConfigInvalid, TargetRefused: as for access.
    """
    from contracts.errors import UsageError
    from serving.authenticate import authenticator_from
    from serving.jwks import is_loopback

    if settings.access == "required":
        authenticator_from(settings)
    elif not is_loopback(host):
        raise UsageError(
            f"--host {host}: wanted a loopback address while access is open to everybody; "
            "set SEATRIAL_ACCESS=required and issue keys (seatrial access issue)"
        )


def shadow(
    follow: Annotated[bool, typer.Option(help="Keep scoring as decisions come; Ctrl-C ends it.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks with --follow.")] = 1.0,
    json_output: Json = False,
) -> None:
    """Score logged decisions with the version that did not answer them; off the path, never served."""
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace

    ws = Workspace()
    count = ws.shadow.run_once()
    while follow:
        time.sleep(every)
        count += ws.shadow.run_once()
    emit({"scored": count}, json_output=json_output)


def replay(
    decision_id: Annotated[str, typer.Argument(help="Decision id: 32 hexadecimal digits.")], json_output: Json = False
) -> None:
    """Recompute a decision from its record alone; exit code 1 and what differs when it is not the same to the bit."""
    from lifecycle.terminal import emit
    from lifecycle.workspace import Workspace
    from serving.wiring import replay_in

    ws = Workspace()
    record = ws.handler.decision(decision_id)
    result = replay_in(ws.settings, record)
    emit(
        {
            "decision_id": decision_id,
            "model": record.model,
            "as_of": record.as_of.isoformat(),
            "rung": record.answer.rung.value,
            "version": record.answer.version or "none",
            "same": result.same,
            "differs": list(result.differs),
            "words": result.words,
        },
        json_output=json_output,
    )
    raise typer.Exit(0 if result.same else 1)
