"""Which tests run first, and on which worker: the slow ones first, and the tests of a module on one worker.

`durations.json` holds the seconds that the slow ones took last; `pytest --write-durations` writes it. A module that is
marked `independent` has no fixture of its own to share: any worker may take each of its tests.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

DURATIONS: Final = Path(__file__).parents[1] / "durations.json"
DEPLOY: Final = Path(__file__).parents[1] / "deploy"  # its tools are not installed for `make test`
MIN_SECONDS: Final = 1.0  # what takes less is not written down
UNKNOWN_SECONDS: Final = 10.0  # of a test that needs a broker and never ran: better early than last


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes the file."""
    parser.addoption("--write-durations", action="store_true", help=f"write what was slow to {DURATIONS.name}")


def pytest_configure(config: pytest.Config) -> None:
    """Listen to the durations in the process that hears of all of them."""
    if config.getoption("--write-durations") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(DurationWriter(), "duration-writer")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what `make test` leaves out, name the group of each test, and put the slow groups first.

    Without workers the order stays.
    """
    for item in items:
        if item.path.is_relative_to(DEPLOY):
            item.add_marker(pytest.mark.slow)
    if not getattr(config.option, "loadgroup", False):
        return
    known = read_durations()
    seconds: dict[str, float] = {}
    for item in items:
        group = group_of(item)
        item.add_marker(pytest.mark.xdist_group(group))
        unknown = UNKNOWN_SECONDS if item.get_closest_marker("kafka") else 0.0
        seconds[item.nodeid] = known.get(group, unknown)
    items.sort(key=lambda item: -seconds[item.nodeid])


def group_of(item: pytest.Item) -> str:
    """Return the name of what has to run on one worker."""
    return item.nodeid if item.get_closest_marker("independent") else item.nodeid.partition("::")[0]


def read_durations() -> dict[str, float]:
    """Return the seconds that groups of tests took last."""
    return dict(json.loads(DURATIONS.read_text())) if DURATIONS.exists() else {}


class DurationWriter:
    """Adds up what every group takes, and writes the slow ones down in the end; the others keep their last figure."""

    def __init__(self) -> None:
        self._seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add what a test took, its fixtures included."""
        _, _, group = report.nodeid.rpartition("@")  # xdist adds it
        self._seconds[group] += report.duration  # type: ignore[assignment]

    def pytest_sessionfinish(self) -> None:
        """Write the file, the slowest first."""
        seconds = read_durations() | {name: round(taken, 1) for name, taken in self._seconds.items()}
        slow = {name: taken for name, taken in seconds.items() if taken >= MIN_SECONDS}
        DURATIONS.write_text(json.dumps(dict(sorted(slow.items(), key=lambda one: -one[1])), indent=1) + "\n")
