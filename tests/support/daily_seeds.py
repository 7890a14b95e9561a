"""Seeds of the simulation that differ from day to day, so that CI tries new ones. The head of the report names them."""

from __future__ import annotations

from datetime import UTC, datetime

COUNT = 20
FIRST = datetime.now(UTC).toordinal() * 1000
SEEDS = range(FIRST, FIRST + COUNT)


def pytest_report_header() -> str:
    """Name the seeds, and the command that repeats them."""
    return f"simulation seeds of today: {FIRST} to {FIRST + COUNT - 1} (make simulate-faults SEED={FIRST})"
