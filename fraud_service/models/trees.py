"""A forest as data: laid out flat as it is stored, its upper levels for the online model, and nested to be walked."""

from __future__ import annotations

from itertools import pairwise
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from fraud_service.domain.features import NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

ENCODING_TREES: Final = 30  # of the forest, the first ones lend their upper levels to the online model
ENCODING_DEPTH: Final = 6
MAX_NODES: Final = 1 << 18  # four times what a training makes: a model must fit into the memory of a pod
MAX_TREES: Final = 1000
MAX_DEPTH: Final = 1000  # levels: ONNX Runtime goes down a tree by recursion
ROUNDING: Final = 1e-9

# A node to walk from is the feature it asks, the threshold, and the ways down for values up to it and above it; a leaf
# is empty. A way is what the share of frauds changes by, the share that it leads to, and the node there.
Node = tuple[()] | tuple[int, float, "Way", "Way"]
Way = tuple[float, float, Node]


_Integers = Annotated[list[int], msgspec.Meta(max_length=MAX_NODES)]
_Floats = Annotated[list[float], msgspec.Meta(max_length=MAX_NODES)]


class Trees(msgspec.Struct, frozen=True):
    """A forest as flat lists, one entry a node; a leaf has `left` -1.

    A row goes left when its feature is not above the threshold, both in single precision. `value` is the share of
    frauds among the training rows that reached the node over the number of trees: the leaves that a row reaches add up
    to the forest's share of frauds, and the steps from parent to child add up to the leaf.
    """

    roots: Annotated[list[int], msgspec.Meta(max_length=MAX_TREES)]
    feature: _Integers
    threshold: _Floats
    left: _Integers
    right: _Integers
    value: _Floats


def require_consistent(trees: Trees) -> None:
    """Check that these are trees, one after the other, whose leaves add up to a share for every payment.

    Raises
    ------
    ValueError
        When a walk might not end, read beyond the lists, reach a node in two ways, or end in a value that is no share.
    """
    roots, count = trees.roots, len(trees.left)
    if {len(column) for column in (trees.feature, trees.threshold, trees.right, trees.value)} != {count}:
        raise ValueError("the columns of the nodes differ in length")
    if not roots or roots[0] != 0 or any(later <= root for root, later in pairwise([*roots, count])):
        raise ValueError("the trees do not follow one another")
    if not all(0 <= feature < len(NAMES) for feature in trees.feature):
        raise ValueError(f"a node uses a feature that is none of the {len(NAMES)}")
    if not all(map(isfinite, trees.threshold)):
        raise ValueError("a threshold is not finite")
    if not all(0 <= value <= (1 + ROUNDING) / len(roots) for value in trees.value):
        raise ValueError("a value is no share of frauds over the number of trees")
    for root, end in pairwise([*roots, count]):
        _require_tree(trees, root, end)


def _require_tree(trees: Trees, root: int, end: int) -> None:
    """Raise `ValueError` unless every node from the root up to the end is reached in one way, from one before it."""
    if trees.left[root] < 0:
        raise ValueError(f"the tree at node {root} is a single leaf")
    depths = {root: 0}
    for node in range(root, end):
        if node not in depths:
            raise ValueError(f"node {node} is reached by no walk")
        children = trees.left[node], trees.right[node]
        if children == (-1, -1):
            continue
        if depths[node] == MAX_DEPTH:
            raise ValueError(f"the tree at node {root} has more than {MAX_DEPTH} levels")
        for child in children:
            if not node < child < end or child in depths:
                raise ValueError(f"node {child} is no child of node {node}: it lies elsewhere, or has another parent")
            depths[child] = depths[node] + 1


def truncate(trees: Trees) -> Trees:
    """Cut the first trees off at a depth; where they are cut, a leaf whose value is its number over all trees."""
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


def to_nested(trees: Trees) -> list[Way]:
    """Return the way into each tree, to be walked without looking anything up."""
    value = trees.value
    nodes: list[Node] = [()] * len(value)
    for number, (left, right) in reversed([*enumerate(zip(trees.left, trees.right, strict=True))]):
        if left < 0:
            continue
        below = value[left] - value[number], value[left], nodes[left]
        above = value[right] - value[number], value[right], nodes[right]
        nodes[number] = trees.feature[number], trees.threshold[number], below, above
    return [(0.0, trees.value[root], nodes[root]) for root in trees.roots]


def features_on_path(roots: list[Way]) -> list[frozenset[int]]:
    """Return the features asked on the way to each leaf that the online model knows, in the order of `cut`."""

    def below(way: Way, met: frozenset[int], depth: int) -> Iterator[frozenset[int]]:
        *_, node = way
        if depth == ENCODING_DEPTH or not node:
            yield met
        else:
            feature, _, *ways = node
            for further in ways:
                yield from below(further, met | {feature}, depth + 1)

    return [met for root in roots[:ENCODING_TREES] for met in below(root, frozenset(), 0)]
