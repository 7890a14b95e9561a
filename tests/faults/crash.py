"""Run the service in a process that kills itself at one step of one checkpoint: `python -m faults.crash score`.

`FRAUD_TEST_CRASH=step:number` sets the step and the checkpoint; empty checkpoints do not count. The service's own code
stays unchanged.
"""

from __future__ import annotations

import os
import signal
import sys

from quixstreams.checkpointing import Checkpoint
from quixstreams.internal_producer import InternalProducer
from quixstreams.kafka.producer import Producer
from quixstreams.state.base.transaction import PartitionTransaction

from fraud_service.cli import main

STEPS = (
    "changelog",  # changelogs and outputs are produced, but not flushed
    "flush",  # the broker has all of them in an open transaction
    "offsets",  # the offsets are in the transaction too
    "commit",  # the transaction is committed, but RocksDB has none of it
    "state",  # RocksDB has the state of one partition, but not of the others
)


def arm(step: str, number: int) -> None:
    """Patch Quix's checkpoint so that the process kills itself at the step."""
    count, inside = 0, False

    def reach(place: str) -> None:
        if inside and place == step and count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def trap(kind: type, name: str, after: str, before: str = "") -> None:
        real = getattr(kind, name)

        def trapped(*arguments, **options):
            reach(before)
            result = real(*arguments, **options)
            reach(after)
            return result

        setattr(kind, name, trapped)

    commit = Checkpoint.commit

    def counted(self, **options):
        nonlocal count, inside
        count, inside = count + 1, True
        commit(self, **options)
        inside = False

    Checkpoint.commit = counted
    trap(InternalProducer, "flush", "flush", before="changelog")
    trap(Producer, "send_offsets_to_transaction", "offsets")
    trap(Producer, "commit_transaction", "commit")
    trap(PartitionTransaction, "flush", "state")


if __name__ == "__main__":
    name, _, nth = os.environ["FRAUD_TEST_CRASH"].partition(":")
    arm(name, int(nth))
    sys.exit(main())
