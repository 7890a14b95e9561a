"""Run the service with a wrong clock: `python -m faults.clock score`.

`FRAUD_TEST_CLOCK` names a file with the offset in seconds. Only Python code uses this clock. The Kafka client reads the
system's clock, and does not even connect under libfaketime.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

REAL = time.time
FILE = Path(os.environ["FRAUD_TEST_CLOCK"])


def moved() -> float:
    """Return the time of the moved clock."""
    return REAL() + float(FILE.read_text())


if __name__ == "__main__":
    time.time, time.time_ns = moved, lambda: int(moved() * 1e9)
    from fraud_service.cli import main

    sys.exit(main())
