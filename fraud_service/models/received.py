"""Loads promoted models from their topic, which keeps all of them; anyone may have sent one."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from fraud_service.domain.detector import MAX_MODELS
from fraud_service.domain.errors import ModelError
from fraud_service.models import artifact
from fraud_service.models.onnx_forest import OnnxForest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fraud_service.models.artifact import Manifest

    Refuse = Callable[[ModelError], None]


def loaded(received: Iterable[bytes], refuse: Refuse) -> Iterator[OnnxForest]:
    """Load models; one that cannot be loaded is refused, and the next one is loaded."""
    for data in received:
        try:
            yield OnnxForest.from_message(data)
        except ModelError as error:
            refuse(error)


def last(received: Iterable[bytes], refuse: Refuse) -> OnnxForest | None:
    """Load the last model that can be loaded; None where there is none."""
    return next(loaded(reversed(deque(received, maxlen=MAX_MODELS)), refuse), None)


def recent(received: Iterable[bytes], superseded: Callable[[Manifest], None], refuse: Refuse) -> list[bytes]:
    """Keep as many of the last versions as a scorer has ready; `superseded` is called for each of the others."""
    kept: dict[str, tuple[Manifest, bytes]] = {}
    for data in received:
        try:
            manifest = artifact.read_manifest(data)
        except ModelError as error:
            refuse(error)
            continue
        kept.pop(manifest.version, None)
        kept[manifest.version] = manifest, data
        if len(kept) > MAX_MODELS:
            superseded(kept.pop(next(iter(kept)))[0])
    return [data for _, data in kept.values()]
