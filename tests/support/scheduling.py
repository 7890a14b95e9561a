"""Which tests run first, and on which worker: the slow ones first, and the tests of a module on one worker.

`durations.json` holds the seconds that the slow ones took last; `pytest --write-durations` writes it.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from xdist.remote import Producer

TESTS: Final = Path(__file__).parents[1]
DEPLOY: Final = TESTS / "deploy"  # its tools are not installed for `make test`
DURATIONS: Final = TESTS / "durations.json"
MIN_SECONDS: Final = 1.0  # what takes less is not written down
UNKNOWN_SECONDS: Final = 60.0  # of a test that needs Kafka and never ran: better early than last

# Modules with slow tests that share no fixture of their module: any worker may take each of them.
INDEPENDENT: Final = {
    "tests/broker/test_operations_on_kafka.py",
    "tests/e2e/test_demo.py",
    "tests/simulation/test_conformance.py",
    "tests/simulation/test_seeds.py",
}


class SlowFirst(LoadScopeScheduling):  # type: ignore[misc]
    """Gives a worker one group of tests after the other, in the order of the collection."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def group_of(nodeid: str) -> str:
    """Return the name of what has to run on one worker."""
    module = nodeid.partition("::")[0]
    return nodeid if module in INDEPENDENT else module


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes the file."""
    parser.addoption("--write-durations", action="store_true", help=f"write what was slow to {DURATIONS.name}")


def pytest_configure(config: pytest.Config) -> None:
    """Listen to the durations in the process that hears of all of them."""
    if config.getoption("--write-durations") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(DurationWriter(), "duration-writer")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> SlowFirst | None:
    """Schedule by group where modules are to stay together, as `--dist loadscope` asks."""
    return SlowFirst(config, log) if config.getoption("dist") == "loadscope" else None


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make test` leaves out, and put the slow groups first."""
    known = read_durations()
    seconds: dict[str, float] = {}
    for item in items:
        if item.path.is_relative_to(DEPLOY):
            item.add_marker(pytest.mark.slow)
        unknown = UNKNOWN_SECONDS if item.get_closest_marker("kafka") else 0.0
        group = group_of(item.nodeid)
        seconds[group] = max(seconds.get(group, 0.0), known.get(group, unknown))
    items.sort(key=lambda item: -seconds[group_of(item.nodeid)])


def read_durations() -> dict[str, float]:
    """Return the seconds that groups of tests took last."""
    return dict(json.loads(DURATIONS.read_text())) if DURATIONS.exists() else {}


class DurationWriter:
    """Adds up what every group takes, and writes the slow ones down in the end; the others keep their last figure."""

    def __init__(self) -> None:
        self._seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add what a test took, its fixtures included."""
        self._seconds[group_of(report.nodeid)] += report.duration  # type: ignore[assignment]

    def pytest_sessionfinish(self) -> None:
        """Write the file, the slowest first."""
        seconds = read_durations() | {name: round(taken, 1) for name, taken in self._seconds.items()}
        slow = {name: taken for name, taken in seconds.items() if taken >= MIN_SECONDS}
        DURATIONS.write_text(json.dumps(dict(sorted(slow.items(), key=lambda one: -one[1])), indent=1) + "\n")
