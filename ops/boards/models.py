"""Quality of the models: scores, labels, components, versions."""

from __future__ import annotations

from typing import Final

from boards.charts import AGE, CAUGHT, DECISIONS, Board, Chart, Limits, Query, Row, per_second, quantiles, share

SCORES: Final = "sum by (le) (rate(fraud_score_bucket{%}[WINDOW])) / scalar(sum(rate(fraud_score_count{%}[WINDOW])))"
DRIFT: Final = f"max(abs({SCORES.replace('WINDOW', '1h')} - {SCORES.replace('WINDOW', '1d')}))"
FRAUDS: Final = 'fraud_labelled_decisions_total{is_fraud="true", %}'

MODELS: Final = Board(
    "fraud-service-models",
    "Fraud service / Models",
    "Quality of the models: scores, drift, decisions against labels, weight of each component, versions.",
    (
        Row(
            "Scores",
            (
                Chart(
                    "Scores",
                    "short",
                    "Distribution of the blended scores over time.",
                    (Query("sum by (le) (increase(fraud_score_bucket{%}[$__rate_interval]))", "{{le}}"),),
                    "heatmap",
                    12,
                ),
                Chart(
                    "Quantiles of scores",
                    "percentunit",
                    "50 %, 90 % and 99 % of the transactions have a score below these lines.",
                    quantiles("fraud_score", 0.5, 0.9, 0.99),
                    span=6,
                ),
                Chart(
                    "Drift of scores",
                    "percentunit",
                    "Kolmogorov-Smirnov distance between the scores of the last hour and of the last day: 0 means "
                    "equal distributions, 1 means no overlap.",
                    (Query(DRIFT, "distance"),),
                    span=6,
                    limits=Limits(red=0.15),
                ),
            ),
        ),
        Row(
            "Labels",
            (
                Chart(
                    "Precision and recall",
                    "percentunit",
                    "Labels of the last day. Precision: share of fraud in the flagged transactions. Recall: share of "
                    "the fraud that was flagged. Until label maturity nearly all labels are fraud, so precision looks "
                    "too high.",
                    (Query(share(CAUGHT, DECISIONS, "1d"), "precision"), Query(share(CAUGHT, FRAUDS, "1d"), "recall")),
                ),
                Chart(
                    "Labelled decisions",
                    "short",
                    "Labelled examples per hour, by decision and label.",
                    (
                        Query(
                            "3600 * " + per_second("fraud_labelled_decisions_total", "outcome, is_fraud"),
                            "{{outcome}}, fraud: {{is_fraud}}",
                        ),
                    ),
                    "stacked",
                ),
                Chart(
                    "Label delay",
                    "s",
                    "Event time from a transaction to its label, for the labels of the last day.",
                    quantiles("fraud_label_delay_seconds", 0.5, 0.9, window="1d"),
                ),
                Chart(
                    "Labels received",
                    "short",
                    "Labels per hour, by source and content.",
                    (
                        Query(
                            "3600 * " + per_second("fraud_labels_received_total", "source, is_fraud"),
                            "{{source}}, fraud: {{is_fraud}}",
                        ),
                    ),
                    "stacked",
                ),
                Chart(
                    "Labelled examples",
                    "short",
                    "Examples per hour that the learner trained on, labelled or mature, by label.",
                    (
                        Query(
                            "3600 * " + per_second("fraud_labelled_examples_total", "is_fraud"), "fraud: {{is_fraud}}"
                        ),
                    ),
                ),
                Chart(
                    "Early labels and corrections",
                    "short",
                    "Per hour. Early: labels that came before the score of their transaction; many of them mean wrong "
                    "ids. Corrections: examples that contradict an earlier label. Not learned: payments whose "
                    "transaction id already has eight payments. Predated: labels with a time before their payment. The "
                    "others: scores and labels without effect.",
                    (
                        Query("3600 * sum(rate(fraud_labels_early_total{%}[$__rate_interval]))", "early"),
                        Query("3600 * sum(rate(fraud_corrections_total{%}[$__rate_interval]))", "corrections"),
                        Query("3600 * sum(rate(fraud_unlearned_payments_total{%}[$__rate_interval]))", "not learned"),
                        Query("3600 * sum(rate(fraud_labels_predated_total{%}[$__rate_interval]))", "predated"),
                        Query("3600 * " + per_second("fraud_label_join_ignored_total", "cause"), "{{cause}}"),
                    ),
                ),
            ),
        ),
        Row(
            "Models in use",
            (
                Chart(
                    "Share of the online model",
                    "percentunit",
                    "Weight of the online model in the blended score. The pretrained model has the rest. 0 means off; "
                    "if the switch is 0 too, an operator turned it off.",
                    (
                        Query("min by (pod) (fraud_online_switch{%})", "{{pod}} switch"),
                        Query("max by (pod) (fraud_online_weight{%})", "{{pod}} active"),
                        Query("max(fraud_learner_online_weight{%})", "published"),
                    ),
                ),
                Chart(
                    "Examples behind the snapshot",
                    "short",
                    "Number of labelled examples behind the newest snapshot, by scorer.",
                    (Query("max by (pod) (fraud_snapshot_examples{%})", "{{pod}}"),),
                ),
                Chart(
                    "Re-fits",
                    "percentunit",
                    "Average precision of the active model (champion) and of the best new model (challenger) in the "
                    "last re-fit. The re-fit promotes a challenger that is better by at least the margin.",
                    (
                        Query("max(fraud_refit_champion_average_precision{%})", "champion"),
                        Query("max(fraud_refit_challenger_average_precision{%})", "challenger"),
                        Query("max(fraud_refit_margin{%})", "margin"),
                    ),
                ),
                Chart(
                    "Since the last re-fit",
                    "s",
                    "Event time since the last re-fit.",
                    (Query(f"{AGE} - (max(fraud_refit_seconds{{%}}) > 0)"),),
                    "number",
                    6,
                ),
                Chart(
                    "Versions in use",
                    "short",
                    "Processes by pretrained model. If two versions stay in use, a scorer did not receive the "
                    "promotion.",
                    (
                        Query("count by (pretrained) (fraud_model_info{%})", "scorers: {{pretrained}}"),
                        Query("count by (pretrained) (fraud_learner_model_info{%})", "learner: {{pretrained}}"),
                    ),
                    "number",
                    18,
                ),
            ),
        ),
    ),
)
