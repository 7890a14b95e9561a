"""Trees: every check of their consistency rejects what it is for."""

from __future__ import annotations

import pytest
from support.small_trees import INCONSISTENT_TREES, chain, two_trees

from fraud_service.models.trees import MAX_DEPTH, require_consistent

pytestmark = pytest.mark.attack


def test_consistent_trees_pass():
    require_consistent(two_trees())
    require_consistent(chain(MAX_DEPTH))


@pytest.mark.parametrize("name", INCONSISTENT_TREES)
def test_inconsistent_trees_are_rejected(name):
    with pytest.raises(ValueError, match=r"node|tree|threshold|value|column"):
        require_consistent(INCONSISTENT_TREES[name])
