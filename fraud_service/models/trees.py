"""A forest as data: laid out flat as it is stored, its upper levels for the online model, and nested to be walked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from fraud_service.domain.features import NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

ENCODING_TREES: Final = 30  # of the forest, the first ones lend their upper levels to the online model
ENCODING_DEPTH: Final = 6

# A node to walk from is the feature it asks, the threshold, and the ways down for values up to it and above it; a leaf
# is empty. A way is what the share of frauds changes by, the share that it leads to, and the node there.
Node = tuple[()] | tuple[int, float, "Way", "Way"]
Way = tuple[float, float, Node]


class Trees(msgspec.Struct, frozen=True):
    """A forest as flat lists, one entry a node; a leaf has `left` -1.

    A row goes left when its feature is not above the threshold, both in single precision. `value` is the share of
    frauds among the training rows that reached the node over the number of trees: the leaves that a row reaches add up
    to the forest's share of frauds, and the steps from parent to child add up to the leaf.
    """

    roots: list[int]
    feature: list[int]
    threshold: list[float]
    left: list[int]
    right: list[int]
    value: list[float]


def cut(trees: Trees) -> Trees:
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


def nested(trees: Trees) -> list[Way]:
    """Return the way into each tree, to be walked without looking anything up.

    Raises
    ------
    ValueError
        When a node does not lie before its children, so that a walk might never end, or asks for no feature of ours.
    """
    value = trees.value
    nodes: list[Node] = [()] * len(value)
    for number, (left, right) in reversed([*enumerate(zip(trees.left, trees.right, strict=True))]):
        if left < 0:
            continue
        if not number < min(left, right):
            raise ValueError(f"node {number} comes after a child of its own")
        if not 0 <= trees.feature[number] < len(NAMES):
            raise ValueError(f"node {number} asks for feature {trees.feature[number]} of {len(NAMES)}")
        below = value[left] - value[number], value[left], nodes[left]
        above = value[right] - value[number], value[right], nodes[right]
        nodes[number] = trees.feature[number], trees.threshold[number], below, above
    return [(0.0, trees.value[root], nodes[root]) for root in trees.roots]


def asked(roots: list[Way]) -> list[frozenset[int]]:
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
