"""The processes: memory, state, checkpoints, snapshots."""

from __future__ import annotations

from typing import Final

from boards.charts import AGE, Board, Chart, Limits, Query, Row, per_second, quantiles, share

RUNTIME: Final = Board(
    "fraud-service-runtime",
    "Fraud service / Runtime",
    "The processes: memory, processor, state, checkpoints, rebalances, recovery, and snapshots on their way.",
    (
        Row(
            "Processes",
            (
                Chart(
                    "Memory",
                    "bytes",
                    "Resident memory of a process. Compare it with the memory limit of its container.",
                    (Query("max by (job, pod) (process_resident_memory_bytes{%})", "{{job}} {{pod}}"),),
                ),
                Chart(
                    "Processor",
                    "short",
                    "Cores in use. A process can use one core: at 1, add replicas; a higher limit does not help.",
                    (Query(per_second("process_cpu_seconds_total", "job, pod"), "{{job}} {{pod}}"),),
                    limits=Limits(yellow=0.8, red=1),
                ),
                Chart(
                    "Time since the start",
                    "s",
                    "A saw-tooth means that the process restarts again and again.",
                    (Query("time() - max by (job, pod) (process_start_time_seconds{%})", "{{job}} {{pod}}"),),
                ),
                Chart(
                    "Partitions",
                    "short",
                    "Input partitions assigned to a process. The sum must be the number of partitions.",
                    (Query("max by (job, pod) (fraud_assigned_partitions{%})", "{{job}} {{pod}}"),),
                ),
                Chart(
                    "Rebalances and interruptions",
                    "short",
                    "Partition assignments of a process in the time range; the first is its start. Interrupted: the "
                    "cluster was unavailable or too slow, and the process continued from its last checkpoint.",
                    (
                        Query("max by (job, pod) (increase(fraud_rebalances_total{%}[$__range]))", "{{job}} {{pod}}"),
                        Query(
                            "max by (job, pod) (increase(fraud_interruptions_total{%}[$__range]))",
                            "{{job}} {{pod}} interrupted",
                        ),
                    ),
                ),
                Chart(
                    "Recovery",
                    "s",
                    "Time from the last assignment to recovered state. A rising line is a recovery in progress.",
                    (Query("max by (job, pod) (fraud_recovery_seconds{%})", "{{job}} {{pod}}"),),
                ),
            ),
        ),
        Row(
            "State",
            (
                Chart(
                    "State",
                    "bytes",
                    "Size of the local state on disk.",
                    (Query("max by (job, pod) (fraud_state_bytes{%})", "{{job}} {{pod}}"),),
                ),
                Chart(
                    "State volume in use",
                    "percentunit",
                    "Used share of the volume with the local state, other files included.",
                    (
                        Query(
                            "1 - max by (job, pod) (fraud_state_volume_free_bytes{%} / fraud_state_volume_bytes{%})",
                            "{{job}} {{pod}}",
                        ),
                    ),
                    limits=Limits(yellow=0.8, red=0.9),
                ),
                Chart(
                    "Cards",
                    "short",
                    "Cards in the state of a partition, estimated by RocksDB. More cards need more disk and a longer "
                    "recovery.",
                    (
                        Query("max by (job, pod, partition) (fraud_cards{%})", "{{job}} {{pod}} {{partition}}"),
                        Query("max(fraud_cards_limit{%})", "limit"),
                    ),
                ),
            ),
        ),
        Row(
            "Transactions",
            (
                Chart(
                    "Time per transaction",
                    "s",
                    "Time to decode, score and encode one transaction, without waiting.",
                    quantiles("fraud_processing_seconds", 0.5, 0.99),
                ),
                Chart(
                    "Checkpoints",
                    "s",
                    "Time to commit state, output and offsets. The process scores nothing during a checkpoint.",
                    quantiles("fraud_checkpoint_seconds", 0.5, 0.99),
                    limits=Limits(yellow=5, red=10),
                ),
                Chart(
                    "Checkpoints per second",
                    "ops",
                    "Checkpoints that committed something.",
                    (Query(per_second("fraud_checkpoint_seconds_count", "job, pod"), "{{job}} {{pod}}"),),
                ),
            ),
        ),
        Row(
            "Snapshots",
            (
                Chart(
                    "Age of the snapshot",
                    "s",
                    "Event time since the boundary of the newest snapshot, in each scorer and as published by the "
                    "learner. A little more than FRAUD_SNAPSHOT_INTERVAL is normal.",
                    (
                        Query(f"scalar({AGE}) - max by (pod) (fraud_snapshot_as_of_seconds{{%}} > 0)", "{{pod}}"),
                        Query(f"{AGE} - max(fraud_learner_snapshot_as_of_seconds{{%}} > 0)", "published"),
                    ),
                    limits=Limits(yellow=2 * 3600, red=3 * 3600),
                ),
                Chart(
                    "Decisions on an old snapshot",
                    "percentunit",
                    "Share of the decisions made although a newer snapshot should have been active.",
                    (Query(share("fraud_stale_decisions_total{%}", "fraud_transactions_total{%}"), "stale"),),
                    limits=Limits(red=0.1),
                ),
                Chart(
                    "Time per snapshot boundary",
                    "s",
                    "Time of the learner to train on the examples of one boundary and publish its snapshot.",
                    quantiles("fraud_boundary_seconds", 0.5, 0.99),
                ),
                Chart(
                    "Throughput of the learner",
                    "ops",
                    "Scores that the learner read, and snapshots that it published, per second.",
                    (
                        Query("sum(rate(fraud_scores_received_total{%}[$__rate_interval]))", "scores"),
                        Query("sum(rate(fraud_snapshots_published_total{%}[$__rate_interval]))", "snapshots"),
                    ),
                ),
                Chart(
                    "Rejected snapshots and models",
                    "short",
                    "Snapshots and promoted models that failed a check in the time range, and snapshots skipped "
                    "because their risk rows or their model are missing. All should be 0, except that signatures are "
                    "required (1).",
                    (
                        Query("sum(increase(fraud_rejected_snapshots_total{%}[$__range]))", "snapshots rejected"),
                        Query("sum(increase(fraud_rejected_models_total{%}[$__range]))", "models rejected"),
                        Query("min(fraud_signatures_demanded{%})", "signatures required"),
                        Query("max(fraud_incomplete_snapshots{%})", "snapshots skipped"),
                    ),
                    span=16,
                ),
            ),
        ),
    ),
)
