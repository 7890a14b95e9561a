"""The first dashboard to open: rate, errors, latency and lag."""

from __future__ import annotations

from typing import Final

from boards.charts import Board, Chart, Limits, Query, Row, per_second, quantiles, share

FLAGGED: Final = share('fraud_transactions_total{outcome!="approve", %}', "fraud_transactions_total{%}")
LATENCY: Final = "0.25"  # seconds: a bucket of the histogram
OBJECTIVE: Final = 0.99  # share of the decisions within it
SCORER_LAG: Final = 60
LEARNER_LAG: Final = 900

OVERVIEW: Final = Board(
    "fraud-service-overview",
    "Fraud service / Overview",
    "The service at a glance: rate, errors, latency, alert rate and lag of all scorers and the learner.",
    (
        Row(
            "Now",
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
                    (
                        Query(
                            share(
                                f'fraud_latency_seconds_bucket{{le="{LATENCY}", %}}', "fraud_latency_seconds_count{%}"
                            )
                        ),
                    ),
                    "number",
                    4,
                    limits=Limits(yellow=0.995, red=OBJECTIVE),
                ),
                Chart(
                    "Lag",
                    "s",
                    "Waiting time of the oldest unfinished record, in the process with the longest one.",
                    (Query("max(fraud_lag_seconds{%})"),),
                    "number",
                    4,
                    limits=Limits(yellow=10, red=SCORER_LAG),
                ),
                Chart(
                    "Dead letters",
                    "short",
                    "Records rejected in the time range: not scored, and not learned from.",
                    (Query("sum(increase(fraud_dead_letters_total{%}[$__range]))"),),
                    "number",
                    4,
                    limits=Limits(yellow=1, red=100),
                ),
                Chart(
                    "Ready",
                    "percentunit",
                    "Share of the processes with assigned partitions, recovered state and loaded models.",
                    (Query("avg by (role) (fraud_ready{%})", "{{role}}"),),
                    "number",
                    4,
                    limits=Limits(yellow=1, red=0.5),
                ),
            ),
        ),
        Row(
            "Decisions",
            (
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
                    "Time from the broker's timestamp of a transaction to its decision. It includes waiting in Kafka. "
                    "The line is 250 ms: 99 % of the decisions must stay below it.",
                    quantiles("fraud_latency_seconds", 0.5, 0.95, 0.99),
                    span=12,
                    limits=Limits(red=float(LATENCY)),
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
                    span=12,
                ),
                Chart(
                    "Lag by process",
                    "s",
                    "Waiting time of the oldest unfinished record. It grows by one second per second while a process "
                    "makes no progress, recovers its state, or has no connection to the brokers.",
                    (Query("max by (job, pod) (fraud_lag_seconds{%})", "{{job}} {{pod}}"),),
                    span=12,
                    limits=Limits(yellow=SCORER_LAG, red=LEARNER_LAG),
                ),
            ),
        ),
        Row(
            "Errors",
            (
                Chart(
                    "Errors",
                    "reqps",
                    "Dead letters, transactions for which a model gave no score, and alerts without reasons. All "
                    "should be 0.",
                    (
                        Query("sum(rate(fraud_dead_letters_total{%}[$__rate_interval]))", "dead letters"),
                        Query(per_second("fraud_component_failures_total", "component"), "{{component}} model failed"),
                        Query(
                            "sum(rate(fraud_unexplained_alerts_total{%}[$__rate_interval]))", "alerts without reasons"
                        ),
                    ),
                ),
                Chart(
                    "Dead letters by reason",
                    "short",
                    "Rejected records in the time range, by reason. See docs/dead-letters.md for what to do.",
                    (Query("sum by (reason) (increase(fraud_dead_letters_total{%}[$__range])) > 0", "{{reason}}"),),
                ),
                Chart(
                    "Duplicate transactions",
                    "reqps",
                    "Duplicates: a producer sent a payment again, and the scorer repeated its first decision. Reused "
                    "ids: another payment came under the same transaction id; it was scored and goes to review.",
                    (
                        Query("sum(rate(fraud_duplicate_transactions_total{%}[$__rate_interval]))", "duplicates"),
                        Query("sum(rate(fraud_reused_transaction_ids_total{%}[$__rate_interval]))", "reused ids"),
                    ),
                ),
                Chart(
                    "Faults of producers",
                    "short",
                    "Transactions in the time range that were outside the partition of their card, or whose entry mode "
                    "has no known meaning. All should be 0.",
                    (
                        Query("sum(increase(fraud_misplaced_transactions_total{%}[$__range]))", "wrong partition"),
                        Query("sum(increase(fraud_unknown_entry_modes_total{%}[$__range]))", "unknown entry mode"),
                    ),
                    limits=Limits(yellow=1, red=100),
                ),
                Chart(
                    "Tokenizer",
                    "reqps",
                    "Messages that the tokenizer forwarded, by kind, and whether it replaced anything.",
                    (
                        Query(
                            "sum by (kind, replaced) (rate(fraud_tokenized_total{%}[$__rate_interval]))",
                            "{{kind}} replaced: {{replaced}}",
                        ),
                    ),
                ),
            ),
        ),
    ),
)
