"""The texts of docs/performance.md between its tables."""

from __future__ import annotations

from typing import Final

HEAD: Final = """\
# Performance

`make bench` measures every figure on this page, on one machine that also runs the broker and the load. On other
machines, ratios within a table stay about the same, but absolute figures differ. A figure of repeated measurements
is the median, with the smallest and the largest in brackets. `benchmarks/notebook.md` has the experiments.
"""
LADDER_TEXT: Final = """\
How fast is the scorer compared with a bare client, plain Quix steps, a naive service and other frameworks?

* Each row is one process on the same full topic of four partitions. The measurement leaves out the first fifth.
* The processes run in turn, {runs} times each. At-least-once commits every second, exactly-once every 0.1 s.
* Processor time covers all threads and children of the process.
* The stateful Quix step only counts the messages of each card, once on raw bytes and once on JSON.
* The naive service (`benchmarks/naive.py`) takes one message at a time, keeps a list in its state, and calls models
  of the same kind and size row by row.
* Cards have no history at the start. The section *Cards in state* has full profiles.
"""
LATENCY_TEXT: Final = """\
How long does it take from the broker's append of a transaction until a `read_committed` consumer receives its
score?

* The load is open: payments come on schedule, even if the service is slow (no coordinated omission). The last
  column is the delay of the feeder itself, 99th percentile.
* Feeder, broker, scorer and reader share the cores. *Capacity* is the rate of scores while the feeder sends more.
  So it is lower than the throughput from a full topic. Each round of loads measures it again.
* The scorer commits every 0.1 s. Exactly-once commits earlier when the input is empty.
* The review threshold is {review} here, which flags one payment in forty.
* The broker's timestamps are whole milliseconds, which adds up to 1 ms. The table leaves out a percentile with too
  few records.
"""
STAGES_TEXT: Final = """\
What does each stage of a decision cost? The table has the processor time for each transaction, in process, on one
core, after {warm:,} payments have filled the profiles.

* *The whole step* is all work of the scorer on a batch, metrics included, with its state in memory.
* *The whole tick* adds the application around it: state in RocksDB and a checkpoint every 1,024 transactions,
  without a broker.
* *Produce* sends a score record through the Kafka client, its threads included.
"""
SCALE_TEXT: Final = """\
How do many cards in state change throughput, memory and disk?

* The changelog has profiles of simulated cards after thirty days, written by the real encoder and compacted by the
  broker.
* A *cold start* reads it on an empty volume. After the start, RocksDB compacts its files; *then busy* is the time
  that this takes.
* The load picks cards evenly, so caches do not help. The scorer is exactly-once and commits every 0.1 s.
* *Disk* is the local state, *changelog* the growth of the broker's files.
"""
RECOVERY_TEXT: Final = """\
The table has the seconds from `kill -9` under load to the first new score that a `read_committed` consumer
receives. The process restarts at once, on its volume or on an empty one. *Ready* is the answer of `/readyz`.
"""
LIVE_TEXT: Final = """\
How fast does the service learn, and how much does a model change slow it down under load?

* Event time runs faster than real time, so hourly snapshots follow each other quickly.
* A label waits for its snapshot boundary and the activation delay, an hour and 15 minutes of event time by default.
  The table has the additional processing time, from the append of the payment that passes the boundary.
* The run promotes a model in the middle.
"""
