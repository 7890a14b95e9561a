"""The first dashboard to open: rate, errors, latency and lag."""

from __future__ import annotations

from typing import Final

from boards.charts import Board, Chart, Query, per_second, quantiles, share

FLAGGED: Final = share('fraud_transactions_total{outcome!="approve", %}', "fraud_transactions_total{%}")
OBJECTIVE: Final = "0.25"  # seconds: that of the latency alerts

OVERVIEW: Final = Board(
    "fraud-service-overview",
    "Fraud service / Overview",
    "The service at a glance: rate, errors, latency, alert rate and lag of all scorers and the learner.",
    (
        Chart(
            "Transactions",
            "reqps",
            "Transactions scored per second, all scorers together.",
            (Query("sum(rate(fraud_transactions_total{%}[$__rate_interval]))"),),
            "number",
            4,
        ),
        Chart(
            "Flagged",
            "percentunit",
            "Share of the transactions with the decision review or decline.",
            (Query(FLAGGED),),
            "number",
            4,
        ),
        Chart(
            "In time",
            "percentunit",
            "Share of the decisions within 250 ms of the broker's timestamp. The objective is 99 %.",
            (Query(share(f'fraud_latency_seconds_bucket{{le="{OBJECTIVE}", %}}', "fraud_latency_seconds_count{%}")),),
            "number",
            4,
        ),
        Chart(
            "Lag",
            "s",
            "Waiting time of the oldest unfinished record, in the process with the longest one.",
            (Query("max(fraud_lag_seconds{%})"),),
            "number",
            4,
        ),
        Chart(
            "Dead letters",
            "short",
            "Records rejected in the time range: not scored, and not learned from.",
            (Query("sum(increase(fraud_dead_letters_total{%}[$__range]))"),),
            "number",
            4,
        ),
        Chart(
            "Ready",
            "short",
            "Processes with assigned partitions, recovered state and loaded models.",
            (Query("sum by (role) (fraud_ready{%})", "{{role}}"),),
            "number",
            4,
        ),
        Chart(
            "Transactions by outcome",
            "reqps",
            "Decisions per second, by outcome. A gap means no transactions, or no running scorer.",
            (Query(per_second("fraud_transactions_total", "outcome"), "{{outcome}}"),),
            "stacked",
            12,
        ),
        Chart(
            "Latency of decisions",
            "s",
            "Time from the broker's timestamp of a transaction to its decision. It includes waiting in Kafka.",
            quantiles("fraud_latency_seconds", 0.5, 0.95, 0.99),
            span=12,
        ),
        Chart(
            "Lag by process",
            "s",
            "Waiting time of the oldest unfinished record. It grows by one second per second while a process makes no "
            "progress, recovers its state, or has no connection to the brokers.",
            (Query("max by (job, pod) (fraud_lag_seconds{%})", "{{job}} {{pod}}"),),
        ),
        Chart(
            "Alert rate",
            "percentunit",
            "Share of the transactions flagged, by outcome. A jump usually means that the input data changed.",
            (
                Query(
                    per_second("fraud_transactions_total", "outcome", 'outcome!="approve", ')
                    + " / scalar(sum(rate(fraud_transactions_total{%}[$__rate_interval])))",
                    "{{outcome}}",
                ),
            ),
        ),
        Chart(
            "Errors",
            "reqps",
            "Dead letters, transactions for which a model gave no score, and alerts without reasons. All should be 0.",
            (
                Query("sum(rate(fraud_dead_letters_total{%}[$__rate_interval]))", "dead letters"),
                Query(per_second("fraud_component_failures_total", "component"), "{{component}} model failed"),
                Query("sum(rate(fraud_unexplained_alerts_total{%}[$__rate_interval]))", "alerts without reasons"),
            ),
        ),
        Chart(
            "Dead letters by reason",
            "short",
            "Rejected records in the time range, by reason. See docs/dead-letters.md for what to do.",
            (Query("sum by (reason) (increase(fraud_dead_letters_total{%}[$__range])) > 0", "{{reason}}"),),
            span=12,
        ),
        Chart(
            "Duplicate transactions",
            "reqps",
            "Duplicates: a producer sent a payment again, and the scorer repeated its first decision. Reused ids: "
            "another payment came under the same transaction id; it was scored and goes to review.",
            (
                Query("sum(rate(fraud_duplicate_transactions_total{%}[$__rate_interval]))", "duplicates"),
                Query("sum(rate(fraud_reused_transaction_ids_total{%}[$__rate_interval]))", "reused ids"),
            ),
            span=12,
        ),
    ),
)
