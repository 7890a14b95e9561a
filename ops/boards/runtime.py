"""How the processes are: memory, state, checkpoints, snapshots."""

from __future__ import annotations

from typing import Final

from boards.charts import AGE, Board, Chart, Query, per_second, quantiles, share

RUNTIME: Final = Board(
    "fraud-service-runtime",
    "Fraud service / Runtime",
    "How are the processes? Memory, processor, state, checkpoints, rebalances, recovery, and the way of a snapshot.",
    (
        Chart(
            "Memory",
            "bytes",
            "Resident memory of a process. Compare it with the limit of its container.",
            (Query("max by (job, pod) (process_resident_memory_bytes{%})", "{{job}} {{pod}}"),),
        ),
        Chart(
            "Processor",
            "short",
            "Cores in use. A process has one core's worth of work: at 1 it needs more replicas, not a larger limit.",
            (Query(per_second("process_cpu_seconds_total", "job, pod"), "{{job}} {{pod}}"),),
        ),
        Chart(
            "Time since the start",
            "s",
            "A saw is a process that is restarted again and again.",
            (Query("time() - max by (job, pod) (process_start_time_seconds{%})", "{{job}} {{pod}}"),),
        ),
        Chart(
            "State",
            "bytes",
            "Size of the local state on disk.",
            (Query("max by (job, pod) (fraud_state_bytes{%})", "{{job}} {{pod}}"),),
        ),
        Chart(
            "State volume in use",
            "percentunit",
            "What is taken of the volume the state lies on, by whomever.",
            (
                Query(
                    "1 - max by (job, pod) (fraud_state_volume_free_bytes{%} / fraud_state_volume_bytes{%})",
                    "{{job}} {{pod}}",
                ),
            ),
        ),
        Chart(
            "Cards",
            "short",
            "Cards in the state of a partition, as RocksDB estimates. Every new one makes volume and recovery grow.",
            (
                Query("max by (job, pod, partition) (fraud_cards{%})", "{{job}} {{pod}} {{partition}}"),
                Query("max(fraud_cards_limit{%})", "limit"),
            ),
        ),
        Chart(
            "Partitions",
            "short",
            "Input partitions that a process works on. Together they must be all.",
            (Query("max by (job, pod) (fraud_assigned_partitions{%})", "{{job}} {{pod}}"),),
        ),
        Chart(
            "Time of a transaction",
            "s",
            "To decode, assess and encode one transaction, without waiting.",
            quantiles("fraud_processing_seconds", 0.5, 0.99),
        ),
        Chart(
            "Checkpoints",
            "s",
            "Time to commit state, output and offsets. Nothing is scored meanwhile.",
            quantiles("fraud_checkpoint_seconds", 0.5, 0.99),
        ),
        Chart(
            "Checkpoints a second",
            "ops",
            "Checkpoints that had something to commit.",
            (Query(per_second("fraud_checkpoint_seconds_count", "job, pod"), "{{job}} {{pod}}"),),
        ),
        Chart(
            "Rebalances and interruptions",
            "short",
            "Times that partitions were given to a process, in the time range; one each is their start. Interrupted: "
            "the cluster was away or too slow, and the process began anew at its last checkpoint.",
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
            "Time from the newest assignment to recovered state; a line that rises is a recovery under way.",
            (Query("max by (job, pod) (fraud_recovery_seconds{%})", "{{job}} {{pod}}"),),
        ),
        Chart(
            "Age of the snapshot",
            "s",
            "Event time since the boundary of the newest snapshot: what scorers have, and what the learner published. "
            "An hour, and a little, is as it should be.",
            (
                Query(f"scalar({AGE}) - max by (pod) (fraud_snapshot_as_of_seconds{{%}} > 0)", "{{pod}}"),
                Query(f"{AGE} - max(fraud_learner_snapshot_as_of_seconds{{%}} > 0)", "published"),
            ),
        ),
        Chart(
            "Decisions on an old snapshot",
            "percentunit",
            "Share of the decisions for which a newer snapshot should have been in force.",
            (Query(share("fraud_stale_decisions_total{%}", "fraud_transactions_total{%}"), "stale"),),
        ),
        Chart(
            "Time of a boundary",
            "s",
            "The learner's time to teach one boundary and publish its snapshot.",
            quantiles("fraud_boundary_seconds", 0.5, 0.99),
        ),
        Chart(
            "The learner's work",
            "ops",
            "Scores that the learner took in, and snapshots that it published, a second.",
            (
                Query("sum(rate(fraud_scores_received_total{%}[$__rate_interval]))", "scores"),
                Query("sum(rate(fraud_snapshots_published_total{%}[$__rate_interval]))", "snapshots"),
            ),
        ),
        Chart(
            "Refused",
            "short",
            "Snapshots and promoted models that failed their check, in the time range, and snapshots passed over "
            "because rows or their model are missing. All should be 0.",
            (
                Query("sum(increase(fraud_refused_snapshots_total{%}[$__range]))", "snapshots refused"),
                Query("sum(increase(fraud_refused_models_total{%}[$__range]))", "models refused"),
                Query("min(fraud_signatures_demanded{%})", "signatures demanded"),
                Query("max(fraud_incomplete_snapshots{%})", "snapshots passed over"),
            ),
            span=16,
        ),
    ),
)
