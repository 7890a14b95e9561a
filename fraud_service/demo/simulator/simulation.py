"""Turn a world into labelled transactions, as columns or as a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np

from fraud_service.demo.simulator.fraud import simulate_fraud
from fraud_service.demo.simulator.payments import ENTRY_MODES, ONLINE, simulate_payments
from fraud_service.demo.simulator.world import CATEGORIES, COUNTRIES, Part, Pattern, make_cards, make_merchants
from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.events import LabelSource
from fraud_service.domain.time import DAY, HOUR, MINUTE
from fraud_service.training.history_arrow import arrow_csv, pa, parquet

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from fraud_service.demo.simulator.payments import Bytes, Rows
    from fraud_service.demo.simulator.world import Bools, Ints, Merchants, World

_SOURCES: Final = (LabelSource.CHARGEBACK, LabelSource.CUSTOMER, LabelSource.ANALYST, LabelSource.SETTLEMENT)


class Simulation(NamedTuple):
    """A simulated world, one array element per transaction in event order.

    `columns` are the columns of the file, in its order. An unknown `device_id` is None and an unknown coordinate NaN.
    `pattern` is the true `Pattern` of each transaction.
    """

    columns: dict[str, NDArray[Any]]
    pattern: Bytes


def simulate(world: World) -> Simulation:
    """Draw the transactions of a world, with labels. The same world gives the same rows on every machine."""
    shops = make_merchants(world)
    people = make_cards(world, shops)
    rows = simulate_fraud(world, people, shops, simulate_payments(world, people, shops))
    rows = rows.where((rows.time >= 0) & (rows.time < world.days * DAY))
    rows = rows.where(np.argsort(rows.time, kind="stable"))
    return Simulation(_columns(world, shops, rows), rows.pattern)


def _columns(world: World, shops: Merchants, rows: Rows) -> dict[str, NDArray[Any]]:
    online, fraud = rows.entry == ONLINE, rows.pattern != Pattern.LEGITIMATE
    devices, index = np.unique(rows.device, return_inverse=True)
    delay, source = _labels(world, fraud)
    return {
        "transaction_id": np.array([f"t-{number:09d}" for number in range(len(fraud))]),
        "timestamp": world.start + rows.time,
        "card_id": np.array([f"c-{number:05d}" for number in range(world.cards)])[rows.card],
        "merchant_id": np.array([f"m-{number:04d}" for number in range(world.merchants)])[rows.merchant],
        "amount": np.clip(rows.amount, 0.2, 9_999).round(2),
        "currency": np.full(len(fraud), "EUR"),
        "merchant_category_code": np.array(CATEGORIES)[shops.category[rows.merchant]],
        "country": np.array(COUNTRIES)[shops.country[rows.merchant]],
        "entry_mode": np.array(ENTRY_MODES)[rows.entry],
        "device_id": np.array([None if number < 0 else f"d-{number:08x}" for number in devices], object)[index],
        "latitude": np.where(online, np.nan, shops.latitude[rows.merchant]),
        "longitude": np.where(online, np.nan, shops.longitude[rows.merchant]),
        "utc_offset_min": np.zeros(len(fraud), np.int64),  # the whole world has one clock, UTC
        "is_fraud": fraud,
        "labelled_at": world.start + rows.time + delay,
        "label_source": np.array(_SOURCES)[source],
    }


def _labels(world: World, fraud: Bools) -> tuple[Ints, Ints]:
    """Draw the delay of each label (ms) and its source (an index of `_SOURCES`)."""
    who, when = world.generator(Part.LABEL_SOURCE).random((len(fraud), 2)).T
    chargeback = np.minimum(5 * DAY * np.exp(0.7 * world.generator(Part.LABEL_DELAY).normal(size=len(fraud))), 30 * DAY)
    customer, analyst = HOUR * (2 + 46 * when), MINUTE * (5 + 355 * when)
    source = np.select([~fraud, who < 0.6, who < 0.85], [3, 0, 1], 2)
    return np.choose(source, [chargeback, customer, analyst, np.float64(7 * DAY)]).astype(np.int64), source


def write(world: World, path: Path) -> int:
    """Simulate a world, write it to a .parquet, .csv or .jsonl file for `History.open`, and return the row count."""
    writers = {".parquet": parquet.write_table, ".csv": arrow_csv.write_csv, ".jsonl": _write_json_lines}
    writer = writers.get(path.suffix.lower())
    if writer is None:
        raise ConfigurationError(f"{path}: cannot tell the format from the name; it must end in {', '.join(writers)}")
    columns = simulate(world).columns
    table = pa.table({name: pa.array(column, from_pandas=True) for name, column in columns.items()})
    try:
        writer(table, path)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror}") from None
    return int(table.num_rows)


def _write_json_lines(table: pa.Table, path: Path) -> None:
    """Write one line per row and leave out unknown values."""
    with path.open("wb") as file:
        for batch in table.to_batches(max_chunksize=32_768):
            for row in batch.to_pylist():
                file.write(msgspec.json.encode({name: value for name, value in row.items() if value is not None}))
                file.write(b"\n")
