"""The command line. Loads a command's module when the command runs; exit codes: 0 ok, 1 a check failed, 2 usage or
configuration, 3 a dependency is down, 4 conflict."""

from __future__ import annotations

import sys

from contracts.errors import SeatrialError
from lifecycle.commands import app
from lifecycle.terminal import no_vendor_warnings


def main() -> None:
    """Run the command line and end the process with the exit code of what happened."""
    no_vendor_warnings()
    try:
        app(standalone_mode=True)
    except SeatrialError as error:
        sys.stderr.write(f"seatrial: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("seatrial: stopped by the keyboard; the next run completes what was begun\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
