"""What it is worth: value flagged, caught and missed."""

from __future__ import annotations

from typing import Final

from boards.charts import CAUGHT, DECISIONS, Board, Chart, Query, per_second, share

SAVED: Final = 'fraud_labelled_fraud_amount_total{outcome!="approve", %}'
MISSED: Final = 'fraud_labelled_fraud_amount_total{outcome="approve", %}'

BUSINESS: Final = Board(
    "fraud-service-business",
    "Fraud service / Business",
    "What is it worth? Value flagged, value of fraud caught and missed as labels arrive, and why alerts were raised. "
    "Amounts count in the currency they come in.",
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
            "Amount of the frauds that became known in the time range and had been flagged.",
            (Query(f"sum(increase({SAVED}[$__range]))"),),
            "number",
            6,
        ),
        Chart(
            "Fraud missed",
            "short",
            "Amount of the frauds that became known in the time range and had been approved.",
            (Query(f"sum(increase({MISSED}[$__range]))"),),
            "number",
            6,
        ),
        Chart(
            "Caught, by value",
            "percentunit",
            "Share of the value of known fraud that had been flagged, in the time range.",
            (Query(share(SAVED, "fraud_labelled_fraud_amount_total{%}", "$__range")),),
            "number",
            6,
        ),
        Chart(
            "Value flagged an hour",
            "short",
            "Amount of flagged transactions, by currency.",
            (Query("3600 * " + per_second("fraud_flagged_amount_total", "currency"), "{{currency}}"),),
            "stacked",
            12,
        ),
        Chart(
            "Fraud caught and missed an hour",
            "short",
            "Amount of frauds as they become known: declined, reviewed, and approved, which is lost. Labels come days "
            "after the payment; this is not the fraud of this hour.",
            (Query("3600 * " + per_second("fraud_labelled_fraud_amount_total", "outcome"), "{{outcome}}"),),
            "stacked",
            12,
        ),
        Chart(
            "Alerts by reason",
            "short",
            "How often each reason was given in the time range; an alert has up to four.",
            (Query("sum by (code) (increase(fraud_reasons_total{%}[$__range]))", "{{code}}"),),
            span=12,
        ),
        Chart(
            "Alerts an hour",
            "short",
            "Transactions to be reviewed and declined: the work of the people who look at them.",
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
            "Share of the flagged transactions labelled in the time range that were fraud.",
            (Query(share(CAUGHT, DECISIONS, "$__range"), "of alerts"),),
            span=12,
        ),
        Chart(
            "Fraud rate",
            "percentunit",
            "Share of frauds in the labelled examples of a day.",
            (
                Query(
                    share(
                        'fraud_labelled_examples_total{is_fraud="true", %}', "fraud_labelled_examples_total{%}", "1d"
                    ),
                    "of examples",
                ),
            ),
            span=12,
        ),
    ),
)
