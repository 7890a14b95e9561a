"""Import pyarrow, or say how to install it: scoring pods do not have it."""

from fraud_service.domain.errors import ConfigurationError

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv, parquet, types
except ModuleNotFoundError as error:
    raise ConfigurationError(
        "pyarrow, which reads and writes files of transactions, is not installed: "
        "run `pip install 'fraud-service[data]'`"
    ) from error

__all__ = ["csv", "pa", "parquet", "pc", "types"]
