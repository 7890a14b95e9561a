"""`fraud-service`, and `python -m fraud_service`: the command line, which hears that it should stop while it loads."""

import os
import signal
import sys
from typing import Final

SERVICES: Final = {"score", "learn", "tokenize"}  # to be told to stop is their good end; other commands are cut off


def main() -> None:
    """Load the command line and run it; told to stop meanwhile, end at once.

    Loading takes a second or two, and process 1 of a container is told of no signal that it does not handle: its pod
    would stay until the grace period is over. Nothing is raised, for some modules make an error of their own of it.
    """
    code = 0 if SERVICES & {*sys.argv[1:2]} else 128 + signal.SIGTERM
    signal.signal(signal.SIGTERM, lambda *_: os._exit(code))
    from fraud_service import cli  # noqa: PLC0415 - this is what takes so long

    cli.main()


if __name__ == "__main__":
    main()
