"""What the tests fetch once and keep, and whose turn it is: the suite runs in two processes, and both find it missing.

Environment
-----------
FRAUD_TEST_CACHE
    Folder that keeps what was fetched between runs. Default: `~/.cache/fraud-service`.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def folder() -> Path:
    """Give the folder, made if it was not there."""
    cache = os.environ.get("FRAUD_TEST_CACHE")
    kept = Path(cache) if cache else Path.home() / ".cache" / "fraud-service"
    kept.mkdir(parents=True, exist_ok=True)
    return kept


@contextmanager
def tick() -> Iterator[None]:
    """Wait until no other process installs or fetches: neither apt-get nor Maven's repository takes two at a time."""
    with (folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back when the file is closed, or the process has ended
        yield
