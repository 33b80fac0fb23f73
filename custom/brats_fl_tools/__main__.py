"""Start of the ``brats-fl`` command: Ctrl-C while the modules are being loaded ends as it does later."""

from __future__ import annotations

import sys


def main() -> None:
    """Load the command line and run it."""
    try:
        from brats_fl_tools import cli

        cli.main()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing was started\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
