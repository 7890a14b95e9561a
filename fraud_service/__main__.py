"""`fraud-service`, and `python -m fraud_service`: the command line, which hears that it should stop while it loads."""

import os
import signal


def main() -> None:
    """Load the command line and run it; told to stop meanwhile, end at once.

    Loading takes a second or two, and process 1 of a container is told of no signal that it does not handle: its pod
    would stay until the grace period is over.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    from fraud_service import cli  # noqa: PLC0415 - this is what takes so long

    cli.main()


if __name__ == "__main__":
    main()
