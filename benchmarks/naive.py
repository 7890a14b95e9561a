"""A naive scorer for comparison: one message at a time, history as a list in the state, models called row by row.

    python benchmarks/naive.py BOOTSTRAP SOURCE SCORES GROUP FOLDER GUARANTEE

It computes its features from a list of the card's last thirty days. Its models have the same kind and size as ours.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from quixstreams import Application
from river import linear_model, optim, preprocessing
from sklearn.ensemble import RandomForestClassifier

if TYPE_CHECKING:
    from quixstreams import State

DAY = 86_400_000
NAMES = ("amount", "hour", "weekend", "c1h", "c1d", "c7d", "c30d", "m1d", "m7d", "m30d", "largest", "ratio", "visits")


def features(transaction: dict[str, Any], history: list[list[Any]], now: float) -> list[float]:
    """Compute the features with one pass over the list for each window."""
    amount = transaction["amount"]
    counts, means = [], []
    for window in (DAY / 24, DAY, 7 * DAY, 30 * DAY):
        amounts = [one[1] for one in history if now - one[0] < window]
        counts.append(len(amounts))
        means.append(sum(amounts) / len(amounts) if amounts else 0.0)
    largest = max((one[1] for one in history), default=0.0)
    visits = sum(one[2] == transaction["merchant_id"] for one in history)
    ratio = amount / means[3] if means[3] else 1.0
    hour, weekend = now // 3_600_000 % 24, float((now // DAY + 3) % 7 >= 5)  # noqa: PLR2004 - Saturday
    return [amount, hour, weekend, *counts, *means[1:], largest, ratio, visits]


def main(bootstrap: str, source: str, scores: str, group: str, folder: str, guarantee: str) -> None:
    """Score until a signal ends the process."""
    rng = np.random.default_rng(1)  # random data will do, because the benchmark measures only speed
    rows, labels = rng.exponential(20.0, (5000, len(NAMES))), rng.random(5000) < 0.02  # noqa: PLR2004
    forest = RandomForestClassifier(100, max_leaf_nodes=128, random_state=1).fit(rows, labels)
    online = preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.01))

    def score(transaction: dict[str, Any], state: State) -> dict[str, Any]:
        now = transaction["timestamp"]
        history = [one for one in state.get("history", []) if now - one[0] < 30 * DAY]
        row = features(transaction, history, now)
        pretrained = float(forest.predict_proba([row])[0][1])
        learned = online.predict_proba_one(dict(zip(NAMES, row, strict=True))).get(True, 0.5)
        state.set("history", [*history, [now, transaction["amount"], transaction["merchant_id"]]])
        blended = (pretrained + learned) / 2
        return {**transaction, "score": blended, "pretrained": pretrained, "online": learned, "features": row}

    app = Application(
        broker_address=bootstrap,
        consumer_group=group,
        auto_offset_reset="earliest",
        state_dir=folder,
        commit_interval=1.0,
        processing_guarantee=guarantee,
        loglevel=None,
    )
    frame = app.dataframe(app.topic(source, value_deserializer="json"))
    frame.apply(score, stateful=True).to_topic(app.topic(scores, value_serializer="json"))
    app.run()


if __name__ == "__main__":
    print(json.dumps({"peer": "naive"}), file=sys.stderr)  # noqa: T201
    main(*sys.argv[1:])
