"""Is fraud being detected, and in time: the dashboard to begin with."""

from __future__ import annotations

from typing import Final

from boards.charts import Board, Chart, Query, per_second, quantiles, share

FLAGGED: Final = share('fraud_transactions_total{outcome!="approve", %}', "fraud_transactions_total{%}")
OBJECTIVE: Final = "0.25"  # seconds: that of the latency alerts

OVERVIEW: Final = Board(
    "fraud-service-overview",
    "Fraud service / Overview",
    "Is fraud being detected, and in time? Rate, errors, latency, alert rate and lag of all scorers and the learner.",
    (
        Chart(
            "Transactions",
            "reqps",
            "Transactions decided a second, by all scorers.",
            (Query("sum(rate(fraud_transactions_total{%}[$__rate_interval]))"),),
            "number",
            4,
        ),
        Chart(
            "Flagged",
            "percentunit",
            "Share of the transactions that were advised to be reviewed or declined.",
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
            "For how long the oldest message in work has been waiting, in the process that is most behind.",
            (Query("max(fraud_lag_seconds{%})"),),
            "number",
            4,
        ),
        Chart(
            "Dead letters",
            "short",
            "Messages of the time range that could not be read, so that nobody scored or learned them.",
            (Query("sum(increase(fraud_dead_letters_total{%}[$__range]))"),),
            "number",
            4,
        ),
        Chart(
            "Ready",
            "short",
            "Processes that have partitions, recovered state and loaded models.",
            (Query("sum by (role) (fraud_ready{%})", "{{role}}"),),
            "number",
            4,
        ),
        Chart(
            "Transactions by outcome",
            "reqps",
            "What was advised, a second. A gap is a time without transactions, or without scorers.",
            (Query(per_second("fraud_transactions_total", "outcome"), "{{outcome}}"),),
            "stacked",
            12,
        ),
        Chart(
            "Latency of decisions",
            "s",
            "From the broker's timestamp of a transaction to its decision; what waits in Kafka counts.",
            quantiles("fraud_latency_seconds", 0.5, 0.95, 0.99),
            span=12,
        ),
        Chart(
            "Lag by process",
            "s",
            "For how long the oldest message in work has been waiting. It grows by a second a second in a process that "
            "stands still, recovers its state, or has lost the brokers.",
            (Query("max by (job, pod) (fraud_lag_seconds{%})", "{{job}} {{pod}}"),),
        ),
        Chart(
            "Alert rate",
            "percentunit",
            "Share of the transactions flagged, by outcome. A jump without a change of fraud is a change of the input.",
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
            "Dead letters, scores that a model did not give, and alerts without reasons. All should be 0.",
            (
                Query("sum(rate(fraud_dead_letters_total{%}[$__rate_interval]))", "dead letters"),
                Query(per_second("fraud_component_failures_total", "component"), "{{component}} model failed"),
                Query("sum(rate(fraud_unexplained_alerts_total{%}[$__rate_interval]))", "alerts without reasons"),
            ),
        ),
        Chart(
            "Dead letters by reason",
            "short",
            "Why messages could not be read, in the time range; docs/dead-letters.md says what to do.",
            (Query("sum by (reason) (increase(fraud_dead_letters_total{%}[$__range])) > 0", "{{reason}}"),),
            span=12,
        ),
        Chart(
            "Repeated transactions",
            "reqps",
            "Repeated: a producer sent a payment again, and it got its first decision again. Id used before: another "
            "payment came under the same transaction id, and was scored and reviewed.",
            (
                Query("sum(rate(fraud_duplicate_transactions_total{%}[$__rate_interval]))", "repeated"),
                Query("sum(rate(fraud_reused_transaction_ids_total{%}[$__rate_interval]))", "id used before"),
            ),
            span=12,
        ),
    ),
)
