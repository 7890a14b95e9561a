"""Small forests, so that a test of training takes seconds."""

from __future__ import annotations

import pytest
from support.histories import QUICK_TREES


@pytest.fixture(scope="module")
def quick():
    """Fit few trees."""
    fit = pytest.importorskip("fraud_service.training.fit")
    with pytest.MonkeyPatch.context() as patch:
        for choice in fit.CANDIDATE_PARAMETERS:
            patch.setitem(choice, "n_estimators", QUICK_TREES)
        yield
