"""Arrow, which reads and writes files of transactions."""

from __future__ import annotations

from fraud_service.domain.errors import ConfigurationError

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet, types
except ModuleNotFoundError as error:  # scoring pods do not have it
    raise ConfigurationError(
        "pyarrow, which reads and writes files of transactions, is not installed: "
        "run `pip install 'fraud-service[data]'`"
    ) from error

__all__ = ["arrow_csv", "pa", "parquet", "pc", "types"]
