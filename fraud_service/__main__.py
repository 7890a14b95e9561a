"""Entry point of `fraud-service` and `python -m fraud_service`. It handles SIGTERM before the imports."""

import os
import signal
import sys
from typing import Final

SERVICES: Final = {"score", "learn", "tokenize"}  # commands that run until SIGTERM


def main() -> None:
    """Import the command line and run it. SIGTERM during the imports ends a service at once with 0.

    The imports take a second or two. PID 1 of a container ignores SIGTERM unless it installs a handler, so the pod
    would linger until SIGKILL. The handler calls `os._exit`, because some modules catch exceptions during their
    import. Other commands keep the default handler, which also ends long computations.
    """
    if SERVICES & {*sys.argv[1:2]}:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    from fraud_service import cli  # noqa: PLC0415 - the slow import

    cli.main()


if __name__ == "__main__":
    main()
