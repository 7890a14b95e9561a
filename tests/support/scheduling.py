"""Schedule the tests: slow ones first, and all tests of a module on one worker.

`durations.json` holds the seconds that slow tests took in the last measured run; `pytest --write-durations` writes it.
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
DEPLOY: Final = TESTS / "deploy"  # `make test` does not install the tools for these
DURATIONS: Final = TESTS / "durations.json"
MIN_SECONDS: Final = 1.0  # the file leaves out faster tests
UNKNOWN_SECONDS: Final = 60.0  # for a Kafka test without a duration, so that it runs early

# Modules whose slow tests share no module fixture, so that each test can run on any worker.
INDEPENDENT: Final = {
    "tests/broker/test_operations_on_kafka.py",
    "tests/e2e/test_demo.py",
    "tests/simulation/test_conformance.py",
    "tests/simulation/test_seeds.py",
}


class SlowFirst(LoadScopeScheduling):  # type: ignore[misc]
    """Assigns groups of tests to workers in the order of the collection."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def group_of(nodeid: str) -> str:
    """Return the name of the group that must run on one worker."""
    module = nodeid.partition("::")[0]
    return nodeid if module in INDEPENDENT else module


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes the file."""
    parser.addoption("--write-durations", action="store_true", help=f"write durations to {DURATIONS.name}")


def pytest_configure(config: pytest.Config) -> None:
    """Register the writer of durations in the process that receives all reports."""
    if config.getoption("--write-durations") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(DurationWriter(), "duration-writer")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> SlowFirst | None:
    """Schedule by group with `--dist loadscope`, which keeps modules together."""
    return SlowFirst(config, log) if config.getoption("dist") == "loadscope" else None


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that `make test` leaves out, and put slow groups first."""
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
    """Return the last measured seconds of each group."""
    return dict(json.loads(DURATIONS.read_text())) if DURATIONS.exists() else {}


class DurationWriter:
    """Sums the seconds of each group and writes those of slow ones at the end. Groups that did not run keep theirs."""

    def __init__(self) -> None:
        self._seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add the duration of a test, fixtures included."""
        self._seconds[group_of(report.nodeid)] += report.duration  # type: ignore[assignment]

    def pytest_sessionfinish(self) -> None:
        """Write the file, slowest group first."""
        seconds = read_durations() | {name: round(taken, 1) for name, taken in self._seconds.items()}
        slow = {name: taken for name, taken in seconds.items() if taken >= MIN_SECONDS}
        DURATIONS.write_text(json.dumps(dict(sorted(slow.items(), key=lambda one: -one[1])), indent=1) + "\n")
