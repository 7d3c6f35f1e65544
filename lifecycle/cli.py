"""The command line. Loads a command's module when the command runs; exit codes: 0 ok, 1 a check failed, 2 usage or
configuration, 3 a dependency is down, 4 conflict."""

from __future__ import annotations

import sys

import typer

from contracts.errors import SeatrialError
from lifecycle.commands import app
from lifecycle.commands.roles import guard
from lifecycle.terminal import no_vendor_warnings


def main() -> None:
    """Run the command line and end the process with the exit code of what happened.

    Every command is held against the table of roles first; one that the table does not know is refused.
    """
    no_vendor_warnings()
    try:
        guard(typer.main.get_command(app))(standalone_mode=True)
    except SeatrialError as error:
        sys.stderr.write(f"seatrial: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("seatrial: stopped by the keyboard; the next run completes what was begun\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
