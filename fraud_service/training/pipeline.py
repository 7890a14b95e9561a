"""Train from end to end: from a history to an artifact with ONNX graph, trees for explanations, and model card.

The ONNX converters round leaf values to single precision. Our graph uses `TreeEnsemble` nodes of ai.onnx.ml version 5,
which keep them in double precision. scikit-learn compares features in single precision, so rounding a threshold down
to single precision changes no comparison.
"""

from __future__ import annotations

import sys
from hashlib import sha256
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from fraud_service.domain.errors import ConfigurationError, ModelError
from fraud_service.domain.features import NAMES
from fraud_service.domain.features import VERSION as FEATURES_VERSION
from fraud_service.domain.local_time import UTC_ZONE
from fraud_service.domain.time import DAY, rfc3339
from fraud_service.models.artifact import FORMAT, MANIFEST, MODEL, MODEL_CARD, TREES, Artifact, Manifest
from fraud_service.models.onnx_forest import LAPLACE, OnnxForest
from fraud_service.models.onnx_graph import onnx_bytes
from fraud_service.models.trees import Trees, count_leaves
from fraud_service.training.dataset import TrainingWindow, collect, logits
from fraud_service.training.fit import FittedForest, fit, prior, standardisation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from fraud_service.training.dataset import Examples
    from fraud_service.training.history import History

MAX_DIFFERENCE: Final = 1e-6  # probability


def train(
    history: History,
    folder: Path,
    *,
    start: int | None,
    label_delay_ms: int,
    source: str,
    progress: Callable[[], None] = lambda: None,
    time_zone: str = UTC_ZONE,
) -> Manifest:
    """Train on a history and write the artifact. The parameters are those of `prepare`, except `source`."""
    window, examples = prepare(
        history, folder, start=start, label_delay_ms=label_delay_ms, progress=progress, time_zone=time_zone
    )
    return export(fit(examples), window, source, folder)


def prepare(
    history: History,
    folder: Path,
    *,
    start: int | None,
    label_delay_ms: int,
    progress: Callable[[], None] = lambda: None,
    time_zone: str = UTC_ZONE,
) -> tuple[TrainingWindow, Examples]:
    """Create the folder of the artifact, and compute the training set.

    `start` is the event time of the first transaction in the training set. Without it, the first third of the history
    only warms the profiles. A label known more than `label_delay_ms` after the end is not used. `progress` is called
    for each transaction. `time_zone` is that of transactions without an offset and without a known country.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)  # fail now rather than after an hour of training
    except OSError as error:
        raise ConfigurationError(f"--out {folder}: cannot create the folder: {error.strerror}") from None
    times = [event.transaction.timestamp for event in history]
    if not times:
        raise ConfigurationError("the history has no transaction: check --train-to and the file")
    begin = start if start is not None else times[0] + (times[-1] - times[0]) // 3
    window = TrainingWindow(begin, times[-1] + 1, label_delay_ms)
    return window, collect(history, window, progress, time_zone)


def export(fitted: FittedForest, window: TrainingWindow, source: str, folder: Path) -> Manifest:
    """Build an artifact and write it into a folder. Raises as `build` does."""
    artifact = build(fitted, window, source)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL).write_bytes(artifact.model)
    (folder / TREES).write_bytes(msgspec.msgpack.encode(artifact.trees))
    pretty = msgspec.json.format(msgspec.json.encode(artifact.manifest), indent=2)
    (folder / MANIFEST).write_bytes(pretty + b"\n")
    (folder / MODEL_CARD).write_text(_model_card(artifact.manifest), encoding="utf-8")
    return artifact.manifest


def build(fitted: FittedForest, window: TrainingWindow, source: str) -> Artifact:
    """Build an artifact. Raises `ModelError` unless it scores the training set as scikit-learn does."""
    trees = flatten(fitted)
    model = onnx_bytes(trees)
    manifest = _manifest(fitted, trees, window, source, {MODEL: model, TREES: msgspec.msgpack.encode(trees)})
    artifact = Artifact(manifest, model, trees)
    difference = max_difference(fitted, OnnxForest(artifact))
    if not difference < MAX_DIFFERENCE:
        raise ModelError(
            f"the exported model differs from scikit-learn by {difference:.1e}, allowed is {MAX_DIFFERENCE:.0e}"
        )
    return artifact


def flatten(fitted: FittedForest) -> Trees:
    """Convert scikit-learn's trees to flat lists, with the fraud share at every node."""
    trees = Trees([], [], [], [], [], [])
    estimators = fitted.model.estimators_
    for estimator in estimators:
        tree, offset = estimator.tree_, len(trees.left)
        leaf = tree.children_left < 0
        trees.roots.append(offset)
        trees.feature.extend(np.where(leaf, 0, tree.feature).tolist())
        trees.threshold.extend(np.where(leaf, 0.0, _rounded_down(tree.threshold)).tolist())
        trees.left.extend(np.where(leaf, -1, tree.children_left + offset).tolist())
        trees.right.extend(np.where(leaf, -1, tree.children_right + offset).tolist())
        counts = tree.value[:, 0, :]
        trees.value.extend((counts[:, 1] / counts.sum(axis=1) / len(estimators)).tolist())
    return trees


def _rounded_down(thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest single-precision numbers that are not above the thresholds."""
    single = thresholds.astype(np.float32)
    too_large = single.astype(np.float64) > thresholds
    return np.where(too_large, np.nextafter(single, np.float32(-np.inf)), single).astype(np.float64)


def max_difference(fitted: FittedForest, served: OnnxForest) -> float:
    """Return the largest difference in probability between scikit-learn and the exported model."""
    expected = fitted.model.predict_proba(fitted.examples.features)[:, 1]
    odds = np.exp(logits(served, fitted.examples.features))
    shares = (odds * (1 + LAPLACE) - LAPLACE) / (1 + odds)
    return float(np.abs(expected - shares).max())


def _manifest(
    fitted: FittedForest, trees: Trees, window: TrainingWindow, source: str, files: dict[str, bytes]
) -> Manifest:
    centre, scale = standardisation(fitted.examples)
    digests = {name: sha256(data).hexdigest() for name, data in files.items()}
    return Manifest(
        format=FORMAT,
        version=f"forest-{digests[MODEL][:12]}",
        features_version=FEATURES_VERSION,
        features=list(NAMES),
        prior=prior(fitted.examples),
        centre=centre,
        scale=scale,
        leaves=count_leaves(trees),
        sha256=digests,
        training={
            "source": source,
            "from": rfc3339(window.start),
            "to": rfc3339(window.end),
            "label_delay_days": window.label_delay_ms / DAY,
            "judged_days": round(fitted.holdout_ms / DAY, 2),
            "rows": len(fitted.examples.labels),
            "frauds": int(fitted.examples.labels.sum()),
            "parameters": fitted.parameters,
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",
            "scikit-learn": version("scikit-learn"),
        },
        metrics=fitted.metrics,
    )


def _model_card(manifest: Manifest) -> str:
    """Return the model card as Markdown."""
    training = manifest.training
    metrics = "\n".join(f"| {name.replace('_', ' ')} | {value:g} |" for name, value in manifest.metrics.items())
    parameters = "\n".join(f"| {name} | {value} |" for name, value in training["parameters"].items())
    return f"""# Model {manifest.version}

A random forest (`RandomForestClassifier` of scikit-learn {training["scikit-learn"]}) on {len(manifest.features)}
features, contract version {manifest.features_version} (see `docs/features.md`). It returns the logit of the
probability that a card payment is fraudulent. The service scores with `model.onnx` and explains with the same trees in
`trees.msgpack`.

| | |
|---|---|
| trained on | {training["source"]} |
| transactions | {training["from"]} to {training["to"]}: {training["rows"]:,}, {training["frauds"]:,} of them frauds |
| labels | known within {training["label_delay_days"]:g} days after the window |

## How good it is

For these metrics, `train` fitted a forest without the last {training["judged_days"]:g} days of the window and evaluated
it on them. Then it fitted the model on the whole window.

| metric | value |
|---|---|
{metrics or "| too few frauds to evaluate | |"}

## Parameters

`train` compared the candidates by average precision on those last days.

| parameter | value |
|---|---|
{parameters}

## What it is not for

A model detects fraud only in payments like those of its training set. Before it decides on other payments, measure it
on them: `fraud-service backtest FILE --models DIR`. If it misses too much there, train a model on your own payments:
`fraud-service train FILE --out DIR`.
"""
