"""The value of the service: amounts flagged, caught and missed."""

from __future__ import annotations

from typing import Final

from boards.charts import CAUGHT, DECISIONS, Board, Chart, Query, Row, per_second, share

SAVED: Final = 'fraud_labelled_fraud_amount_total{outcome!="approve", %}'
MISSED: Final = 'fraud_labelled_fraud_amount_total{outcome="approve", %}'

BUSINESS: Final = Board(
    "fraud-service-business",
    "Fraud service / Business",
    "The value of the service: amounts flagged, fraud caught and missed as labels arrive, and reasons of alerts. "
    "Amounts are in the currency of the transaction.",
    (
        Row(
            "In the time range",
            (
                Chart(
                    "Value flagged",
                    "short",
                    "Amount of the transactions flagged in the time range, by currency.",
                    (Query("sum by (currency) (increase(fraud_flagged_amount_total{%}[$__range]))", "{{currency}}"),),
                    "number",
                    6,
                ),
                Chart(
                    "Fraud caught",
                    "short",
                    "Amount of the fraud labelled in the time range that the service had flagged.",
                    (Query(f"sum(increase({SAVED}[$__range]))"),),
                    "number",
                    6,
                ),
                Chart(
                    "Fraud missed",
                    "short",
                    "Amount of the fraud labelled in the time range that the service had approved.",
                    (Query(f"sum(increase({MISSED}[$__range]))"),),
                    "number",
                    6,
                ),
                Chart(
                    "Caught, by value",
                    "percentunit",
                    "Share of the amount of the fraud labelled in the time range that the service had flagged.",
                    (Query(share(SAVED, "fraud_labelled_fraud_amount_total{%}", "$__range")),),
                    "number",
                    6,
                ),
            ),
        ),
        Row(
            "Money",
            (
                Chart(
                    "Value flagged per hour",
                    "short",
                    "Amount of flagged transactions, by currency.",
                    (Query("3600 * " + per_second("fraud_flagged_amount_total", "currency"), "{{currency}}"),),
                    "stacked",
                    12,
                ),
                Chart(
                    "Fraud caught and missed per hour",
                    "short",
                    "Amount of fraud by the decision on it: declined, sent to review, or approved (missed). It counts "
                    "in the hour of the label, which comes days after the payment.",
                    (Query("3600 * " + per_second("fraud_labelled_fraud_amount_total", "outcome"), "{{outcome}}"),),
                    "stacked",
                    12,
                ),
            ),
        ),
        Row(
            "Alerts",
            (
                Chart(
                    "Alerts by reason",
                    "short",
                    "Number of alerts with each reason in the time range. An alert has up to four.",
                    (Query("sum by (code) (increase(fraud_reasons_total{%}[$__range]))", "{{code}}"),),
                    span=12,
                ),
                Chart(
                    "Alerts per hour",
                    "short",
                    "Transactions to review or decline: the workload of the reviewers.",
                    (
                        Query(
                            "3600 * " + per_second("fraud_transactions_total", "outcome", 'outcome!="approve", '),
                            "{{outcome}}",
                        ),
                    ),
                    "stacked",
                    12,
                ),
                Chart(
                    "Frauds among alerts",
                    "percentunit",
                    "Of the flagged transactions that were labelled in the time range, the share that was fraud.",
                    (Query(share(CAUGHT, DECISIONS, "$__range"), "of alerts"),),
                    span=12,
                ),
                Chart(
                    "Fraud rate",
                    "percentunit",
                    "Share of fraud in the labelled examples of the last day.",
                    (
                        Query(
                            share(
                                'fraud_labelled_examples_total{is_fraud="true", %}',
                                "fraud_labelled_examples_total{%}",
                                "1d",
                            ),
                            "of examples",
                        ),
                    ),
                    span=12,
                ),
            ),
        ),
    ),
)
