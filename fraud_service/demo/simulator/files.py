"""Write simulated transactions to files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from fraud_service.demo.simulator.simulation import simulate
from fraud_service.domain.errors import ConfigurationError
from fraud_service.training.history.arrow import csv, pa, parquet

if TYPE_CHECKING:
    from pathlib import Path

    from fraud_service.demo.simulator.world import World


def write(world: World, path: Path) -> int:
    """Simulate a world, write it to a .parquet, .csv or .jsonl file for `History.open`, and return the number of rows.

    Raises
    ------
    ConfigurationError
        When the name has another suffix, or the file cannot be written.
    """
    writers = {".parquet": parquet.write_table, ".csv": csv.write_csv, ".jsonl": _write_json_lines}
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
