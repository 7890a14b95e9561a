"""Keep what the tests fetch, and let only one of the suite's processes fetch at a time.

Environment
-----------
FRAUD_TEST_CACHE
    Folder that keeps fetched files between runs. Default: `~/.cache/fraud-service`.
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
    """Return the folder, created if it was missing."""
    cache = os.environ.get("FRAUD_TEST_CACHE")
    kept = Path(cache) if cache else Path.home() / ".cache" / "fraud-service"
    kept.mkdir(parents=True, exist_ok=True)
    return kept


@contextmanager
def tick() -> Iterator[None]:
    """Wait until no other process installs or fetches, because apt-get and Maven's repository allow only one."""
    with (folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed or the process ends
        yield
