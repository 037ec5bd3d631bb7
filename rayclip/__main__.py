"""The program ``rayclip``. It handles signals before any slow import."""

import os

from rayclip.console import say_to_user
from rayclip.interrupts import Terminated, end_on_signals, ending_status


def main() -> None:
    """Run the command line and exit with its status."""
    end_on_signals()
    try:
        from rayclip.cli import run

        run()
    except (KeyboardInterrupt, Terminated):  # before the command started, or after it ended
        say_to_user("rayclip: interrupted")
        os._exit(ending_status() or 1)


if __name__ == "__main__":
    main()
