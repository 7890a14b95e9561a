"""The measurements of `quality.py`: baselines and our models on the Handbook's protocol, and feature groups' costs."""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import handbook
import numpy as np
import pyarrow as pa
from pyarrow import parquet
from sklearn.metrics import average_precision_score, roc_auc_score

from fraud_service.cli import GARBAGE_THRESHOLD
from fraud_service.domain.features import NAMES, extraction
from fraud_service.domain.time import DAY
from fraud_service.models.onnx_forest import OnnxForest
from fraud_service.training.dataset import TrainingWindow, collect
from fraud_service.training.history import History
from fraud_service.training.mapping import FileMapping

if TYPE_CHECKING:
    from numpy.typing import NDArray

CACHE = Path(".cache/quality")
COLUMNS = {"customer_id": "card_id", "terminal_id": "merchant_id"}
MAPPING = FileMapping(
    fields={field: column for column, field in COLUMNS.items()}, constants={"currency": "EUR"}, time_zone="UTC"
)
FIRST_DAY = np.datetime64("2018-04-01")  # of every file
DELAY = 7 * DAY
FOLDS = [91, 98, 105, 112]
ALL_FOLDS = list(range(38, 116, 7))  # every test week whose training week has three weeks before it
LIVE_FOLDS = list(range(72, 115, 7))  # the weeks that the backtest covers
WARMED = 21  # first day of training in the protocol that trains on all days; the earlier days fill the profiles

POISONED = (113, 120)  # days whose labels are flipped; the labels arrive on days 120 to 126
POISONED_SHARE = 0.1

# Feature groups by the function that computes them, with the first column and the end.
GROUPS = {
    "the transaction itself": ("_transaction_features", 0, 5),
    "activity of the card": ("_activity_features", 5, 18),
    "amounts of the card": ("_amount_features", 18, 23),
    "company of the card": ("_merchant_device_and_place_features", 23, 28),
    "risk of the merchant": ("_merchant_risk_features", 28, 39),
    "risk of the card": ("_card_risk_features", 39, 42),
}


class Stream(NamedTuple):
    """A file, its training days and its reported days, counted from the first day of the file, ends exclusive."""

    name: str
    file: str
    train: tuple[int, int]
    reported: tuple[int, int]


STREAMS = (
    Stream("handbook", "handbook_days_000_121.parquet", (21, 58), (65, 121)),
    Stream("seed101", "sim_seed101.parquet", (30, 90), (97, 153)),
    Stream("drift202", "sim_drift202.parquet", (30, 90), (97, 183)),
)


def date(day: int) -> str:
    """Format a day of the files as a date."""
    return str(FIRST_DAY + np.timedelta64(day, "D"))


def payments(stream: Stream, data: Path) -> handbook.Payments:
    """Read a file, and compute the features of all its transactions unless they are in the cache."""
    path = CACHE / f"{stream.name}-features.npy"
    history = History.open(data / stream.file, MAPPING)
    events = list(history)
    if not path.exists():
        window = TrainingWindow(events[0].transaction.timestamp, events[-1].transaction.timestamp + 1, DELAY)
        np.save(path, collect(history, window).features)
    return handbook.Payments(
        np.array([event.transaction.timestamp for event in events]),
        np.array([int(event.transaction.card_id) for event in events]),
        np.array([int(event.transaction.merchant_id) for event in events]),
        np.array([event.transaction.amount for event in events]),
        np.array([bool(event.is_fraud) for event in events]),
        np.load(path),
    )


def protocol(stream: Stream, data: Path) -> dict[str, list[float]]:
    """Return AUC, AP and CP@100 of the baselines and of our pretrained model, as means of four weekly folds."""
    known = payments(stream, data)
    models = {**handbook.baselines(known), "pretrained model, 42 features": handbook.ours(known)}
    found = {name: handbook.folds(known, FOLDS, predict).mean(axis=0).tolist() for name, predict in models.items()}
    whole = handbook.folds(known, FOLDS, handbook.ours(known), WARMED)
    return {**found, "the same, trained on all days from 21": whole.mean(axis=0).tolist()}


def protocol_weeks(stream: Stream, data: Path) -> dict[str, list[float]]:
    """Return the same over every weekly fold of the file, since the choice of four folds moves CP@100 by .01."""
    known = payments(stream, data)
    forest = "random forest, 15 features"
    models = {forest: handbook.baselines(known)[forest], "pretrained model, 42 features": handbook.ours(known)}
    return {name: handbook.folds(known, ALL_FOLDS, model).mean(axis=0).tolist() for name, model in models.items()}


def protocol_live(stream: Stream, data: Path, first_test_days: list[int]) -> dict[str, list[float]]:
    """Return the same for the backtest's scores, which use an earlier model and the labels known at that time."""
    known = payments(stream, data)
    table = parquet.read_table(CACHE / stream.name / "hybrid.parquet")
    chosen = (known.days >= stream.reported[0]) & (known.days < stream.reported[1])
    found = {}
    for name, what in (("pretrained", "frozen"), ("score", "hybrid")):
        scores = np.full(len(chosen), np.nan)
        scores[chosen] = table[name].to_numpy()
        figures = handbook.folds(known, first_test_days, lambda _, test, scores=scores: scores[test]).mean(axis=0)
        found[f"{what}, fitted on days {stream.train[0]} to {stream.train[1] - 1}, then as live"] = figures.tolist()
    return found


def groups(data: Path) -> dict[str, list[float]]:
    """Return µs per transaction of each feature group, and the average precision lost without it."""
    known = payments(STREAMS[0], data)
    whole = handbook.folds(known, FOLDS, handbook.ours(known)).mean(axis=0)[1]
    spent = _microseconds(data)
    found = {}
    for name, (function, first, end) in GROUPS.items():
        rest = [column for column in range(len(NAMES)) if not first <= column < end]
        without = handbook.folds(known, FOLDS, handbook.ours(known, rest)).mean(axis=0)[1]
        found[name] = [spent[function], float(whole - without)]
    return {**found, **_model_costs(known)}


def _microseconds(data: Path) -> dict[str, float]:
    """Time the feature functions on the first 40 days of the Handbook's file."""
    spent: dict[str, float] = {}

    def timed(name: str) -> None:
        function = getattr(extraction, name)

        def wrapper(*arguments: Any) -> Any:
            began = time.perf_counter()
            result = function(*arguments)
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - began
            return result

        setattr(extraction, name, wrapper)

    gc.set_threshold(GARBAGE_THRESHOLD)  # as every command does; the default would add collections to random functions
    originals = {name: getattr(extraction, name) for name in (*(group[0] for group in GROUPS.values()), "_month")}
    for name in originals:
        timed(name)
    try:
        history = History.open(data / STREAMS[0].file, MAPPING, end=epoch(40))
        events = list(history)
        collect(events, TrainingWindow(epoch(0), epoch(40), DELAY))
    finally:
        for name, function in originals.items():
            setattr(extraction, name, function)
    micros = {name: seconds / len(events) * 1e6 for name, seconds in spent.items()}
    micros["_activity_features"] += micros["_month"]  # `_month` also serves the amounts
    return micros


def epoch(day: int) -> int:
    """Return the start of a day of the files in epoch milliseconds."""
    return int((FIRST_DAY + np.timedelta64(day, "D")).astype("datetime64[ms]").astype(int))


class _Row(NamedTuple):
    values: tuple[float, ...]

    def vector(self) -> tuple[float, ...]:
        return self.values


def _model_costs(known: handbook.Payments) -> dict[str, list[float]]:
    model = OnnxForest.load(CACHE / "handbook" / "model")
    rows: Any = [_Row(tuple(row)) for row in known.features[-2000:].tolist()]
    online = model.untrained_online_model()
    costs = {}
    for name, batch in (("pretrained model, one at a time", 1), ("pretrained model, batches of 250", 250)):
        began = time.perf_counter()
        for start in range(0, len(rows), batch):
            model.encode(rows[start : start + batch])
        costs[name] = [(time.perf_counter() - began) / len(rows) * 1e6]
    encoded = model.encode(rows)
    began = time.perf_counter()
    encoded.online(online, encoded.logits)
    costs["online model, scoring"] = [(time.perf_counter() - began) / len(rows) * 1e6]
    return costs


def poisoned(data: Path) -> Path:
    """Write `sim_seed101` up to day 136 with a tenth of the labels of days 113 to 119 flipped; returns the file."""
    path = CACHE / "poisoned.parquet"
    table = parquet.read_table(data / STREAMS[1].file)
    days = (table["timestamp"].cast("timestamp[ms]").cast("int64").to_numpy() - epoch(0)) // DAY
    labels, rng = table["is_fraud"].to_numpy().copy(), np.random.default_rng(3)
    flipped = (days >= POISONED[0]) & (days < POISONED[1]) & (rng.random(len(days)) < POISONED_SHARE)
    labels[flipped] = 1 - labels[flipped]
    column = table.schema.get_field_index("is_fraud")
    parquet.write_table(table.set_column(column, "is_fraud", pa.array(labels)).filter(pa.array(days < 136)), path)  # noqa: PLR2004
    return path


class Part(NamedTuple):
    """Average precision and AUC of each kind of score, over some days of a run."""

    average_precision: dict[str, float]
    auc_roc: dict[str, float]


def part(stream: str, run_name: str, days: tuple[int, int]) -> Part | None:
    """Evaluate some days of a run's scores; None without a run."""
    path = CACHE / stream / f"{run_name}.parquet"
    if not path.exists():
        return None
    table = parquet.read_table(path)
    moments = table["timestamp"].cast("int64").to_numpy()
    chosen = (moments >= epoch(days[0])) & (moments < epoch(days[1]))
    truth: NDArray[np.bool_] = table["is_fraud"].to_numpy(zero_copy_only=False)[chosen].astype(bool)
    scores = {name: table[name].to_numpy()[chosen] for name in ("pretrained", "online", "score")}
    return Part(
        {name: float(average_precision_score(truth, values)) for name, values in scores.items()},
        {name: float(roc_auc_score(truth, values)) for name, values in scores.items()},
    )
