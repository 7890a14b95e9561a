"""The service in a process whose clock is off by as many seconds as a file says: `python -m faults.clock score`.

`FRAUD_TEST_CLOCK` names the file. All that is written in Python sees that clock; the Kafka client has its own, which
cannot be moved for it alone: under libfaketime it does not even connect.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

REAL = time.time
FILE = Path(os.environ["FRAUD_TEST_CLOCK"])


def moved() -> float:
    """Tell the time."""
    return REAL() + float(FILE.read_text())


if __name__ == "__main__":
    time.time, time.time_ns = moved, lambda: int(moved() * 1e9)
    from fraud_service.cli import main

    sys.exit(main())
