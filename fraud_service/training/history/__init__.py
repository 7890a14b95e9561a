"""A file of past transactions and what became known of them, read in event order.

Parquet, CSV or JSON Lines; the columns may bear foreign names. A file is read and checked whole when it is opened:
whatever cannot be a transaction stops the start with the row and the column, rather than surfacing an hour into a
replay. Columns are converted and sorted by Arrow, and only while iterating do rows become transactions.
"""

from fraud_service.training.history.history import History

__all__ = ["History"]
