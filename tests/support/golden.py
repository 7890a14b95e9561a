"""The golden log, and the output of every command on it.

`python tests/support/golden.py --write` writes both again. This is necessary when the shipped model, the features or a
record change. A change of the replay alone must not need it.
"""

from __future__ import annotations

import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import pytest
from support.archived import Log
from support.replayed import QUICK, played

from fraud_service.config.settings import Settings
from fraud_service.domain.decision import Policy
from fraud_service.domain.records import decode_score
from fraud_service.verification import case_report, replay, snapshots, what_if
from fraud_service.verification.decisions import TimeRange
from fraud_service.verification.explain import explain
from fraud_service.verification.time_travel import profile_at

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER: Final = Path(__file__).parents[1] / "unit/verification"
LOG: Final = FOLDER / "golden.jsonl.gz"
OUTPUT: Final = FOLDER / "golden.txt"
LOG_SETTINGS: Final = QUICK | {"snapshot_interval": timedelta(hours=12)}
PARTITIONS: Final = 4


def output() -> str:
    """Return the output of replay, snapshots, state and explain on the golden log."""
    log = Log.load(Settings(allow_unsigned=True, **LOG_SETTINGS), PARTITIONS, LOG)
    with pytest.MonkeyPatch.context() as patch:
        log.serve(patch)
        return "\n".join(_found(log)) + "\n"


def _found(log: Log) -> Iterator[str]:
    settings, last = log.settings, [decode_score(entry.value) for entry in log.on("scores")][-1]
    asked = replay.plan(settings, TimeRange())
    yield _json(replay.verify(settings, asked))
    yield _json(what_if.compare(settings, asked, what_if.Candidate(Policy(review=0.02))).figures)
    yield _json(snapshots.rebuild(settings))
    yield _json(snapshots.list_snapshots(settings))
    yield _json(profile_at(settings, last.card_id, last.timestamp))
    yield case_report.text(explain(settings, last.transaction_id))


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=1).decode()


def write() -> None:
    """Run the service for the golden log, and write the log and the commands' output."""
    events = [(n % 5, n % 3, 700.0 if n % 6 == 0 else 15.0 + n % 7, 1 + n % 3, 30, n % 6 == 0) for n in range(60)]
    with tempfile.TemporaryDirectory() as folder:
        played(Path(folder), events, **LOG_SETTINGS).write(LOG)
    OUTPUT.write_text(output(), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        write()
    else:
        sys.stdout.write(output())
