"""State that is read and written directly is what Quix reads and writes."""

from __future__ import annotations

import pytest
from support.loop import looped

from fraud_service.runtime.stream import KeyState


@pytest.fixture
def transaction(tmp_path):
    """Give what opens the state's transaction of a partition, and what commits it."""
    with looped(tmp_path) as loop:
        (stream_id,) = loop.scorer.app._state_manager.stores
        context = loop.scorer._context
        yield lambda: context.checkpoint.get_store_transaction(stream_id, 0), loop.scorer.commit


def test_a_value_is_read_and_written_as_by_quix_before_and_after_it_is_committed(transaction):
    begin, commit = transaction
    assert not begin()._partition.uses_ttl_stamps  # or Quix would cut a stamp off what it reads

    def both(key: bytes) -> tuple[bytes | None, bytes | None]:
        return KeyState(begin(), begin()._partition, key).get_bytes("profile"), begin().as_state(prefix=key).get_bytes(
            "profile"
        )

    assert both(b"c-1") == (None, None)
    KeyState(begin(), begin()._partition, b"c-1").set_bytes("profile", b"one")
    begin().as_state(prefix=b"c-2").set_bytes("profile", b"two")
    assert (both(b"c-1"), both(b"c-2")) == ((b"one", b"one"), (b"two", b"two"))
    commit()
    assert (both(b"c-1"), both(b"c-2")) == ((b"one", b"one"), (b"two", b"two"))
    begin().as_state(prefix=b"c-1").delete("profile")
    assert (both(b"c-1"), both(b"")) == ((None, None), (None, None))
    commit()
    assert both(b"c-1") == (None, None)
