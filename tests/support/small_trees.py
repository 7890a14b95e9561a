"""Small forests: consistent ones, and one for each kind of inconsistency."""

from __future__ import annotations

import math

from fraud_service.domain.features import NAMES
from fraud_service.models.trees import MAX_DEPTH, Trees


def two_trees(**columns):
    """Return two trees with a root and two leaves each; `columns` replaces some columns."""
    known = {
        "roots": [0, 3],
        "feature": [0, 0, 0, 1, 0, 0],
        "threshold": [1.0, 0.0, 0.0, 2.0, 0.0, 0.0],
        "left": [1, -1, -1, 4, -1, -1],
        "right": [2, -1, -1, 5, -1, -1],
        "value": [0.1, 0.0, 0.5, 0.2, 0.1, 0.3],
    }
    return Trees(**known | columns)


def chain(levels):
    """Return a tree with one inner node at each level."""
    count = 2 * levels + 1
    inner = [*range(0, count - 1, 2)]
    left, right = [-1] * count, [-1] * count
    for node in inner:
        left[node], right[node] = node + 1, node + 2
    return Trees([0], [0] * count, [0.0] * count, left, right, [0.0] * count)


INCONSISTENT_TREES = {
    "cycle": two_trees(left=[0, -1, -1, 4, -1, -1]),
    "backwards": two_trees(left=[1, -1, -1, 2, -1, -1]),
    "beyond_the_end": two_trees(left=[10**12, -1, -1, 4, -1, -1]),
    "another_tree": two_trees(right=[4, -1, -1, 5, -1, -1]),
    "one_child_twice": two_trees(right=[1, -1, -1, 5, -1, -1]),
    "half_a_leaf": two_trees(right=[2, 2, -1, 5, -1, -1]),
    "negative_child": two_trees(left=[1, -7, -1, 4, -1, -1]),
    "feature_beyond": two_trees(feature=[len(NAMES), 0, 0, 1, 0, 0]),
    "feature_negative": two_trees(feature=[-1, 0, 0, 1, 0, 0]),
    "threshold_infinite": two_trees(threshold=[math.inf, 0.0, 0.0, 2.0, 0.0, 0.0]),
    "threshold_not_a_number": two_trees(threshold=[math.nan, 0.0, 0.0, 2.0, 0.0, 0.0]),
    "share_above_one": two_trees(value=[0.1, 0.0, 0.6, 0.2, 0.1, 0.3]),
    "share_negative": two_trees(value=[0.1, -0.1, 0.5, 0.2, 0.1, 0.3]),
    "share_not_a_number": two_trees(value=[0.1, math.nan, 0.5, 0.2, 0.1, 0.3]),
    "columns_differ": two_trees(value=[0.1]),
    "no_trees": two_trees(roots=[]),
    "roots_unordered": two_trees(roots=[3, 0]),
    "root_beyond": two_trees(roots=[0, 6]),
    "root_missing": two_trees(roots=[0]),
    "single_leaf": Trees([0], [0], [0.0], [-1], [-1], [0.0]),
    "too_deep": chain(MAX_DEPTH + 1),
}
