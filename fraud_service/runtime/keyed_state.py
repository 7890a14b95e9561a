"""The state of one message key: read from RocksDB, written with the current checkpoint.

Quix's own `State` makes checks that this service does not need, and costs more than RocksDB itself. Quix still decides
the format of the rows, and when they are committed and recovered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from quixstreams.state.metadata import Marker

from fraud_service.runtime.changelogs import suffix
from fraud_service.runtime.quix_internals import uncommitted_changes

if TYPE_CHECKING:
    from collections.abc import Callable

    from quixstreams.state.base import PartitionTransaction, StorePartition

    from fraud_service.kafka.messages import Received


class State(Protocol):
    """The state of a message's key on its partition."""

    def get_bytes(self, name: str, /) -> bytes | None:
        """Return a value."""

    def set_bytes(self, name: str, value: bytes, /) -> None:
        """Write a value."""


class StateAccessor(Protocol):
    """Returns the state of a message's key on its partition."""

    def __call__(self, message: Received) -> State:
        """Return it."""


class KeyState:
    """The state of one message key, compatible with `quixstreams.State`."""

    __slots__ = ("_changes", "_key", "_partition")

    def __init__(self, transaction: PartitionTransaction, partition: StorePartition, key: bytes) -> None:
        self._changes = uncommitted_changes(transaction)
        self._partition = partition
        self._key = key

    def get_bytes(self, name: str) -> bytes | None:
        """Return a value: the one that this checkpoint wrote, else the committed one."""
        place = self._key + suffix(name)
        found = self._changes.get(place, self._key)
        if found is Marker.UNDEFINED:
            found = self._partition.get_or_create_column_family("default").get(place)
        return found if isinstance(found, bytes) else None

    def set_bytes(self, name: str, value: bytes) -> None:
        """Write a value, with this checkpoint."""
        self._changes.set(self._key + suffix(name), value, self._key)

    def delete(self, name: str) -> None:
        """Remove a value, with this checkpoint."""
        self._changes.delete(self._key + suffix(name), self._key)


class StateStore:
    """A domain `Store`: the state under one prefix on one partition, in the transaction of the current checkpoint."""

    def __init__(self, state: Callable[[], KeyState]) -> None:
        self._state = state

    def get(self, key: str) -> bytes | None:
        """Return the value, None where there is none."""
        return self._state().get_bytes(key)

    def put(self, key: str, value: bytes) -> None:
        """Set the value."""
        self._state().set_bytes(key, value)

    def delete(self, key: str) -> None:
        """Remove the value, if there is one."""
        self._state().delete(key)
