"""A forest as data: flat lists to store, upper levels as inputs of the online model, nested tuples for explanations."""

from __future__ import annotations

from itertools import pairwise
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from fraud_service.domain.features import NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

ENCODING_TREES: Final = 30  # the upper levels of the first trees are inputs of the online model
ENCODING_DEPTH: Final = 6
MAX_NODES: Final = 1 << 18  # four times as many as training makes; bounds the memory of a pod
MAX_TREES: Final = 1000
MAX_DEPTH: Final = 1000  # levels: ONNX Runtime walks a tree by recursion
ROUNDING: Final = 1e-9

# A nested tree. A node is (feature, threshold, branch up to the threshold, branch above it); a leaf is empty. A branch
# is (change of the fraud share, fraud share at its node, node).
Node = tuple[()] | tuple[int, float, "Branch", "Branch"]
Branch = tuple[float, float, Node]

_Integers = Annotated[list[int], msgspec.Meta(max_length=MAX_NODES)]
_Floats = Annotated[list[float], msgspec.Meta(max_length=MAX_NODES)]


class Trees(msgspec.Struct, frozen=True):
    """A forest as flat lists with one entry for each node; a leaf has `left` -1.

    A row goes left if its feature is not above the threshold, both in single precision. `value` is the fraud share
    among the training rows that reached the node, divided by the number of trees. So the values of the leaves that a
    row reaches add up to the fraud share of the forest.
    """

    roots: Annotated[list[int], msgspec.Meta(max_length=MAX_TREES)]
    feature: _Integers
    threshold: _Floats
    left: _Integers
    right: _Integers
    value: _Floats


def require_consistent(trees: Trees) -> None:
    """Raise `ValueError` unless the lists are trees, one after the other, that give every row a share in [0, 1]."""
    roots, count = trees.roots, len(trees.left)
    if {len(column) for column in (trees.feature, trees.threshold, trees.right, trees.value)} != {count}:
        raise ValueError("the columns of the nodes differ in length")
    if not roots or roots[0] != 0 or any(later <= root for root, later in pairwise([*roots, count])):
        raise ValueError("the trees do not follow one another")
    if not all(0 <= feature < len(NAMES) for feature in trees.feature):
        raise ValueError(f"a node has a feature number outside of 0 to {len(NAMES) - 1}")
    if not all(map(isfinite, trees.threshold)):
        raise ValueError("a threshold is not finite")
    if not all(0 <= value <= (1 + ROUNDING) / len(roots) for value in trees.value):
        raise ValueError("a value is not a fraud share divided by the number of trees")
    for root, end in pairwise([*roots, count]):
        _require_tree(trees, root, end)


def _require_tree(trees: Trees, root: int, end: int) -> None:
    """Raise `ValueError` unless every node in (root, end) has exactly one parent, and the parent is before it."""
    if trees.left[root] < 0:
        raise ValueError(f"the tree at node {root} is a single leaf")
    depths = {root: 0}
    for node in range(root, end):
        if node not in depths:
            raise ValueError(f"node {node} has no parent")
        children = trees.left[node], trees.right[node]
        if children == (-1, -1):
            continue
        if depths[node] == MAX_DEPTH:
            raise ValueError(f"the tree at node {root} has more than {MAX_DEPTH} levels")
        for child in children:
            if not node < child < end or child in depths:
                raise ValueError(
                    f"node {child} cannot be a child of node {node}: it is in another place or has another parent"
                )
            depths[child] = depths[node] + 1


def truncate(trees: Trees) -> Trees:
    """Return the upper levels of the first trees; the value of a leaf is its number over all trees."""
    small = Trees([], [], [], [], [], [])
    leaves = 0

    def grow(node: int, depth: int) -> int:
        nonlocal leaves
        place, is_leaf = len(small.left), depth == ENCODING_DEPTH or trees.left[node] < 0
        small.feature.append(trees.feature[node])
        small.threshold.append(trees.threshold[node])
        small.left.append(-1)
        small.right.append(-1)
        small.value.append(float(leaves) if is_leaf else 0.0)
        if is_leaf:
            leaves += 1
        else:
            small.left[place] = grow(trees.left[node], depth + 1)
            small.right[place] = grow(trees.right[node], depth + 1)
        return place

    small.roots.extend([grow(root, 0) for root in trees.roots[:ENCODING_TREES]])
    return small


def count_leaves(trees: Trees) -> int:
    """Return the number of leaves that are inputs of the online model."""
    return sum(node < 0 for node in truncate(trees).left)


def to_nested(trees: Trees) -> list[Branch]:
    """Return the branch to the root of each tree, for fast walks."""
    value = trees.value
    nodes: list[Node] = [()] * len(value)
    for number, (left, right) in reversed([*enumerate(zip(trees.left, trees.right, strict=True))]):
        if left < 0:
            continue
        below = value[left] - value[number], value[left], nodes[left]
        above = value[right] - value[number], value[right], nodes[right]
        nodes[number] = trees.feature[number], trees.threshold[number], below, above
    return [(0.0, trees.value[root], nodes[root]) for root in trees.roots]


def features_on_path(roots: list[Branch]) -> list[frozenset[int]]:
    """Return the features on the path to each leaf that is an input of the online model, in the order of `truncate`."""

    def walk(branch: Branch, path: frozenset[int], depth: int) -> Iterator[frozenset[int]]:
        *_, node = branch
        if depth == ENCODING_DEPTH or not node:
            yield path
        else:
            feature, _, *branches = node
            for lower in branches:
                yield from walk(lower, path | {feature}, depth + 1)

    return [path for root in roots[:ENCODING_TREES] for path in walk(root, frozenset(), 0)]
