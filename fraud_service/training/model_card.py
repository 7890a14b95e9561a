"""The model card: what a reader needs to know before trusting a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fraud_service.models.artifact import Manifest


def model_card(manifest: Manifest) -> str:
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

These metrics are of a forest fitted without the last {training["judged_days"]:g} days of the window and evaluated on
them. The model itself was then fitted on the whole window.

| metric | value |
|---|---|
{metrics or "| too few frauds to evaluate | |"}

## Parameters

Average precision on those last days chose between the candidates.

| parameter | value |
|---|---|
{parameters}

## What it is not for

A model is good only for payments like those in its training set. A model trained on simulated payments shows that the
service works. Before it decides on real payments, train it on yours: `fraud-service train FILE --out DIR`.
"""
