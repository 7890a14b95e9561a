"""pyarrow, or how to install it: scoring pods live without."""

from fraud_service.domain.errors import ConfigurationError

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv, parquet, types
except ModuleNotFoundError as error:
    raise ConfigurationError(
        "files of transactions are read and written with pyarrow, which is not installed:"
        " run `pip install 'fraud-service[data]'`"
    ) from error

__all__ = ["csv", "pa", "parquet", "pc", "types"]
