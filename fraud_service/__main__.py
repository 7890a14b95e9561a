"""`fraud-service` and `python -m fraud_service`: the command line, where a service hears at once that it should end."""

import os
import signal
import sys
from typing import Final

SERVICES: Final = {"score", "learn", "tokenize"}  # commands that run until they are told to stop


def main() -> None:
    """Load the command line and run it; a service that is told to stop meanwhile ends at once, with 0.

    Loading takes a second or two, and process 1 of a container is told of no signal that it does not handle: its pod
    would stay until the grace period is over. Nothing is raised, for some modules make an error of their own of it.
    Other commands leave the signal to the system, which ends them within the longest computation too.
    """
    if SERVICES & {*sys.argv[1:2]}:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    from fraud_service import cli  # noqa: PLC0415 - this is what takes so long

    cli.main()


if __name__ == "__main__":
    main()
