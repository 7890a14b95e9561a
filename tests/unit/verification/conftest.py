"""One log for all tests of the verification; a test that alters it takes a copy."""

from __future__ import annotations

import pytest
from support.replayed import played

from fraud_service.domain.records import decode_score


@pytest.fixture(scope="session")
def log(tmp_path_factory):
    """Give the log of 180 payments on 6 cards in 8 days; every eighth payment is a fraud."""
    events = [(n % 6, n % 4, 900.0 if n % 8 == 0 else 20.0 + n % 13, n % 3, 30, n % 8 == 0) for n in range(180)]
    return played(tmp_path_factory.mktemp("log"), events, promoted_at=90)


@pytest.fixture
def flagged(log):
    """Give the last decision that was not an approval."""
    scores = [decode_score(entry.value) for entry in log.on("scores")]
    return [one for one in scores if one.outcome != "approve" and not one.is_duplicate][-1]
