"""The model card: what a person should know of an artifact before trusting it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fraud_service.models.artifact import Manifest


def model_card(manifest: Manifest) -> str:
    """Write the card of a model as Markdown."""
    training = manifest.training
    metrics = "\n".join(f"| {name.replace('_', ' ')} | {value:g} |" for name, value in manifest.metrics.items())
    parameters = "\n".join(f"| {name} | {value} |" for name, value in training["parameters"].items())
    return f"""# Model {manifest.version}

A forest (`RandomForestClassifier` of scikit-learn {training["scikit-learn"]}) over {len(manifest.features)} features,
contract version {manifest.features_version} (see `docs/features.md`). Returns the logit of the probability that a card
payment is fraudulent. Served from `model.onnx`; `trees.msgpack` holds the same trees for explanations.

| | |
|---|---|
| trained on | {training["source"]} |
| transactions | {training["from"]} to {training["to"]}: {training["rows"]:,}, of which {training["frauds"]:,} frauds |
| labels | known within {training["label_delay_days"]:g} days after the window |

## How good it is

Fitted on the beginning of the window and judged on its end ({training["judged_days"]:g} days), before it was fitted on
all of it:

| figure | value |
|---|---|
{metrics or "| too few frauds to judge | |"}

## Settings

Those that varied were chosen by average precision on that end of the window.

| parameter | value |
|---|---|
{parameters}

## What it is not for

It knows the payments it was trained on. A model trained on simulated payments shows that the service works; before it
decides on real ones, train it on yours: `fraud-service train FILE --out DIR`.
"""
