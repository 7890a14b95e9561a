"""Load pretrained models and choose the active one, by the same rule in all roles.

The first model is the artifact that processes start with. Every later one was promoted. A promoted model comes from the
models topic, so it may be forged. If it fails its check, the registry rejects it and tries the next one.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from fraud_service.domain.detector import MAX_MODELS
from fraud_service.domain.errors import ModelError
from fraud_service.models import artifact
from fraud_service.models.onnx_forest import OnnxForest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fraud_service.domain.detector import Detector
    from fraud_service.domain.snapshot import SnapshotStore
    from fraud_service.models.artifact import Manifest


class ModelRegistry:
    """The pretrained models of one process.

    `active` is the model promoted last, or the first one. The learner trains beside it. A scorer uses the model that
    the snapshot of a transaction names, and the first one where that model is not loaded. `detector` and `snapshots`
    get every model, so that the detector can score with it and the store accepts its snapshots.
    """

    def __init__(
        self,
        first: OnnxForest,
        on_rejected: Callable[[ModelError], None] = lambda _: None,
        on_activated: Callable[[OnnxForest], None] = lambda _: None,
        *,
        detector: Detector | None = None,
        snapshots: SnapshotStore | None = None,
    ) -> None:
        self.active = first
        self._on_rejected = on_rejected
        self._on_activated = on_activated
        self._detector = detector
        self._snapshots = snapshots

    def activate(self, model: OnnxForest) -> None:
        """Make a model the active one."""
        self.active = model
        if self._detector is not None:
            self._detector.register_model(model)
        self._accept_snapshots_of(model.manifest)
        self._on_activated(model)

    def activate_last(self, received: Iterable[bytes]) -> None:
        """Activate the last promoted model that passes its check, if there is any. Loads no other model."""
        model = next(self._load(reversed(deque(received, maxlen=MAX_MODELS))), None)
        if model is not None:
            self.activate(model)

    def activate_newest(self, received: Iterable[bytes]) -> None:
        """Load as many of the newest versions as a detector holds, and activate each in turn.

        Snapshots of older versions are still accepted; the detector scores them with the first model.
        """
        for model in self._load(self._newest_versions(received)):
            self.activate(model)

    def _accept_snapshots_of(self, manifest: Manifest) -> None:
        if self._snapshots is not None:
            self._snapshots.register_model(manifest.version, manifest.leaves)

    def _load(self, received: Iterable[bytes]) -> Iterator[OnnxForest]:
        for data in received:
            try:
                yield OnnxForest.from_message(data)
            except ModelError as error:
                self._on_rejected(error)

    def _newest_versions(self, received: Iterable[bytes]) -> list[bytes]:
        newest: dict[str, tuple[Manifest, bytes]] = {}
        for data in received:
            try:
                manifest = artifact.read_manifest(data)
            except ModelError as error:
                self._on_rejected(error)
                continue
            newest.pop(manifest.version, None)
            newest[manifest.version] = manifest, data
            if len(newest) > MAX_MODELS:
                oldest, _ = newest.pop(next(iter(newest)))
                self._accept_snapshots_of(oldest)
        return [data for _, data in newest.values()]
