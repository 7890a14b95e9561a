"""The texts of docs/performance.md between its tables."""

from __future__ import annotations

from typing import Final

HEAD: Final = """# Performance

`make bench` measures every figure on this page, on one machine, with broker and load beside the service. Ratios
between neighbours in a table hold on other machines too; absolute figures do not. Where a measurement was repeated,
the figure is the median, with the least and the largest in brackets. `benchmarks/notebook.md` has the experiments.
"""
LADDER_TEXT: Final = """How fast is the scorer beside a bare client, plain Quix steps, a naive service and other
frameworks?

* Each rung is a process of its own on the same full topic of four partitions. The first fifth is not measured.
* Rungs take turns, {runs} times. Checkpoints come every second, under exactly-once every 0.1 s.
* Processor time covers all threads and children of the process.
* The stateful Quix step only counts the messages of each card, once on raw bytes and once on JSON.
* The naive service (`benchmarks/naive.py`) takes one message at a time, keeps a list in its state, and calls models
  of the same kind and size row by row.
* Cards have no history at the start. *Cards in state* below has full profiles.
"""
LATENCY_TEXT: Final = """How long from the broker's append of a transaction until a `read_committed` consumer holds
its score?

* The load is open: payments come on schedule whatever the service does (no coordinated omission). The last column
  says how late the feeder itself was, 99th percentile.
* Feeder, broker, scorer and reader share the cores. *Capacity* is the rate of scores while more than that is fed,
  so it is lower than the throughput from a full topic. It is measured again before each round of loads.
* Checkpoints come every 0.1 s, and earlier under exactly-once when the input is empty.
* The review threshold is {review} here, which flags one payment in forty.
* The broker's clock ticks in milliseconds, which adds up to one. A percentile with too few records behind it is
  left out.
"""
STAGES_TEXT: Final = """What does each stage of a decision cost? Processor time for each transaction, in process, on
one core, after {warm:,} payments have filled the profiles.

* *The whole step* is what the scorer does with a batch, metrics included, with its state in memory.
* *The whole turn* adds the application around it: state in RocksDB, a checkpoint every 1,024 transactions, no
  broker.
* *Produce* hands a score record to the client, its threads included.
"""
SCALE_TEXT: Final = """What do many cards cost?

* The changelog was filled with profiles of simulated cards after thirty days (real encoder). The broker had
  compacted it.
* A *cold start* reads it on an empty volume. RocksDB compacts its files behind the start; *then busy* says for how
  long.
* Payments are drawn evenly from all cards, so caches do not help. Exactly-once, a commit every 0.1 s.
* *Disk* is the local state, *changelog* the growth of the broker's files.
"""
RECOVERY_TEXT: Final = """Seconds from `kill -9` at work to the first new score that a `read_committed` consumer
sees. The process restarts at once, on its volume or on an empty one. *Ready* is
`/readyz`.
"""
LIVE_TEXT: Final = """How fast does the service learn, and what does a change cost under load?

* Event time runs faster than real time, so that hourly snapshots follow each other.
* A label waits for its snapshot boundary and the activation delay, an hour and 15 minutes of event time by default.
  The table has what the machine adds, counted from the append of the payment that passes the boundary.
* A model was promoted in the middle of the run.
"""
