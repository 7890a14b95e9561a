"""Past transactions and their labels from a file (Parquet, CSV or JSON Lines), in event order.

`History.open` reads and checks the whole file. So an invalid row stops the command at its start, with row and column,
and not an hour later. Arrow converts and sorts the columns; iteration turns rows into transactions.
"""

from fraud_service.training.history.history import History

__all__ = ["History"]
