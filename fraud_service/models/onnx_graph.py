"""The canonical ONNX graph of a forest: the only ONNX that an artifact may contain.

ONNX can also express loops, other files, functions and custom operators. A model whose ONNX is equal to this module's
output has none of these, and its scores cannot differ from its explanations. The module writes the wire format of
protocol buffers (onnx.proto) itself, so pods need no ONNX library.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from fraud_service.domain.features import NAMES
from fraud_service.models.trees import Trees, truncate

if TYPE_CHECKING:
    from collections.abc import Iterable

IR_VERSION: Final = 10
OPSETS: Final = (("", 21), ("ai.onnx.ml", 5))  # by domain
UINT8: Final = 2  # TensorProto.DataType
DOUBLE: Final = 11
INT: Final = 2  # AttributeProto.AttributeType
TENSOR: Final = 4
INTS: Final = 7
SUM: Final = 1  # of `aggregate_function`
NONE: Final = 0  # of `post_transform`


def onnx_bytes(trees: Trees) -> bytes:
    """Return the graph with the input `features` of shape (rows, features).

    Outputs: `share` (rows, 1) is the fraud share. `leaves` (rows, trees) are the numbers of the reached leaves among
    the inputs of the online model. They are doubles, because a graph has one numeric type.
    """
    small = truncate(trees)
    body = [
        _ensemble(trees, "share", [0] * len(trees.roots)),
        _ensemble(small, "leaves", [*range(len(small.roots))]),
        _text(2, "fraud"),
        _matrix(11, "features", len(NAMES)),
        _matrix(12, "share", 1),
        _matrix(12, "leaves", len(small.roots)),
    ]
    opsets = [_bytes(8, _text(1, domain) + _int(2, version)) for domain, version in OPSETS]
    return _int(1, IR_VERSION) + _text(2, "fraud-service") + _bytes(7, b"".join(body)) + b"".join(opsets)


def _ensemble(trees: Trees, output: str, targets: list[int]) -> bytes:
    """Encode trees as one node; a row adds the value of the leaf that it reaches in a tree to the tree's target."""
    content = _text(1, "features") + _text(2, output) + _text(4, "TreeEnsemble")
    return _bytes(1, content + b"".join(_tree_attributes(trees, targets)) + _text(7, "ai.onnx.ml"))


def _tree_attributes(trees: Trees, targets: list[int]) -> list[bytes]:
    """Encode the attributes of a TreeEnsemble, sorted by name as the ONNX library does."""
    inner = [node for node, left in enumerate(trees.left) if left >= 0]
    leaves = [node for node, left in enumerate(trees.left) if left < 0]
    index = {node: position for group in (inner, leaves) for position, node in enumerate(group)}
    lefts, rights = [trees.left[node] for node in inner], [trees.right[node] for node in inner]
    return [
        _attribute("aggregate_function", INT, _int(3, SUM)),
        _ints("leaf_targetids", (targets[bisect_right(trees.roots, leaf) - 1] for leaf in leaves)),
        _tensor("leaf_weights", "weights", [trees.value[node] for node in leaves]),
        _attribute("n_targets", INT, _int(3, max(targets) + 1)),
        _ints("nodes_falseleafs", (int(trees.left[node] < 0) for node in rights)),
        _ints("nodes_falsenodeids", (index[node] for node in rights)),
        _ints("nodes_featureids", (trees.feature[node] for node in inner)),
        _modes(len(inner)),
        _tensor("nodes_splits", "splits", [trees.threshold[node] for node in inner]),
        _ints("nodes_trueleafs", (int(trees.left[node] < 0) for node in lefts)),
        _ints("nodes_truenodeids", (index[node] for node in lefts)),
        _attribute("post_transform", INT, _int(3, NONE)),
        _ints("tree_roots", (index[root] for root in trees.roots)),
    ]


def _modes(count: int) -> bytes:
    """Encode the mode 0 for every node: values up to the threshold go to the left."""
    tensor = _int(1, count) + _int(2, UINT8) + _bytes(5, bytes(count)) + _text(8, "modes")
    return _attribute("nodes_modes", TENSOR, _bytes(5, tensor))


def _tensor(attribute: str, name: str, values: list[float]) -> bytes:
    data = _bytes(10, struct.pack(f"<{len(values)}d", *values))
    tensor = _int(1, len(values)) + _int(2, DOUBLE) + _text(8, name) + data
    return _attribute(attribute, TENSOR, _bytes(5, tensor))


def _ints(name: str, values: Iterable[int]) -> bytes:
    return _attribute(name, INTS, b"".join([_int(8, value) for value in values]))


def _attribute(name: str, kind: int, content: bytes) -> bytes:
    return _bytes(5, _text(1, name) + content + _int(20, kind))


def _matrix(field: int, name: str, columns: int) -> bytes:
    """Declare an input or output of doubles with any number of rows."""
    shape = _bytes(1, b"") + _bytes(1, _int(1, columns))
    return _bytes(field, _text(1, name) + _bytes(2, _bytes(1, _int(1, DOUBLE) + _bytes(2, shape))))


def _text(field: int, text: str) -> bytes:
    return _bytes(field, text.encode())


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    """Encode a non-negative number, seven bits to a byte, the lowest first."""
    if value < 128:  # noqa: PLR2004 - nearly all numbers of a graph
        return _ONE_BYTE[value]
    written = bytearray()
    while value >= 128:  # noqa: PLR2004
        written.append(value & 127 | 128)
        value >>= 7
    written.append(value)
    return bytes(written)


_ONE_BYTE: Final = [bytes([value]) for value in range(128)]
