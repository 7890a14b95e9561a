"""Do the models still know fraud: scores, labels, components, versions."""

from __future__ import annotations

from typing import Final

from boards.charts import AGE, CAUGHT, DECISIONS, Board, Chart, Query, per_second, quantiles, share

SCORES: Final = "sum by (le) (rate(fraud_score_bucket{%}[WINDOW])) / scalar(sum(rate(fraud_score_count{%}[WINDOW])))"
DRIFT: Final = f"max(abs({SCORES.replace('WINDOW', '1h')} - {SCORES.replace('WINDOW', '1d')}))"
FRAUDS: Final = 'fraud_labelled_decisions_total{is_fraud="true", %}'

MODELS: Final = Board(
    "fraud-service-models",
    "Fraud service / Models",
    "Do the models still know fraud? Scores, what labels say of decisions, weights of the components, drift, versions.",
    (
        Chart(
            "Scores",
            "short",
            "How the blended scores are distributed over time.",
            (Query("sum by (le) (increase(fraud_score_bucket{%}[$__rate_interval]))", "{{le}}"),),
            "heatmap",
            12,
        ),
        Chart(
            "Quantiles of scores",
            "percentunit",
            "The scores that half, nine in ten and ninety-nine in a hundred transactions stay below.",
            quantiles("fraud_score", 0.5, 0.9, 0.99),
            span=6,
        ),
        Chart(
            "Drift of scores",
            "percentunit",
            "Largest distance between the distribution of the last hour's scores and of the last day's (Kolmogorov and "
            "Smirnov's): 0 is equal, 1 is apart.",
            (Query(DRIFT, "distance"),),
            span=6,
        ),
        Chart(
            "Precision and recall",
            "percentunit",
            "Of the labels of a day: the share of fraud in what was flagged, and of what was flagged in fraud. Until "
            "the first transactions mature, nearly all labels are frauds and precision is too high.",
            (Query(share(CAUGHT, DECISIONS, "1d"), "precision"), Query(share(CAUGHT, FRAUDS, "1d"), "recall")),
        ),
        Chart(
            "Labelled decisions",
            "short",
            "Labelled examples an hour, by what was advised and what it was.",
            (
                Query(
                    "3600 * " + per_second("fraud_labelled_decisions_total", "outcome, is_fraud"),
                    "{{outcome}}, fraud: {{is_fraud}}",
                ),
            ),
            "stacked",
        ),
        Chart(
            "Delay of labels",
            "s",
            "From a transaction to its label, event time, of the labels of a day.",
            quantiles("fraud_label_delay_seconds", 0.5, 0.9, window="1d"),
        ),
        Chart(
            "Labels received",
            "short",
            "Labels an hour, by their source and what they say.",
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
            "Examples taught an hour, labelled or matured, by what they were.",
            (Query("3600 * " + per_second("fraud_labelled_examples_total", "is_fraud"), "fraud: {{is_fraud}}"),),
        ),
        Chart(
            "Early labels and corrections",
            "short",
            "An hour: labels whose transaction was not known (yet), and examples that contradict what was taught "
            "before. Many early labels name transactions that are not here. Not taught are payments whose transaction "
            "id already has eight payments.",
            (
                Query("3600 * sum(rate(fraud_labels_early_total{%}[$__rate_interval]))", "early"),
                Query("3600 * sum(rate(fraud_corrections_total{%}[$__rate_interval]))", "corrections"),
                Query("3600 * sum(rate(fraud_untaught_payments_total{%}[$__rate_interval]))", "not taught"),
            ),
        ),
        Chart(
            "Share of the online model",
            "percentunit",
            "Weight of the online model in the blend; the pretrained model has the rest. 0 is switched off, by an "
            "operator where the switch is 0 too.",
            (
                Query("min by (pod) (fraud_online_switch{%})", "{{pod}} switch"),
                Query("max by (pod) (fraud_online_weight{%})", "{{pod}} in force"),
                Query("max(fraud_learner_online_weight{%})", "published"),
            ),
        ),
        Chart(
            "Examples behind the snapshot",
            "short",
            "Labelled examples that the newest snapshot knows, by scorer.",
            (Query("max by (pod) (fraud_snapshot_examples{%})", "{{pod}}"),),
        ),
        Chart(
            "Re-fits",
            "percentunit",
            "Average precision of the model that reigned and of the best challenger in the newest re-fit. A challenger "
            "is promoted when it leads by the margin.",
            (
                Query("max(fraud_refit_champion_average_precision{%})", "champion"),
                Query("max(fraud_refit_challenger_average_precision{%})", "challenger"),
                Query("max(fraud_refit_margin{%})", "margin"),
            ),
        ),
        Chart(
            "Since the last re-fit",
            "s",
            "Event time since the newest re-fit.",
            (Query(f"{AGE} - (max(fraud_refit_seconds{{%}}) > 0)"),),
            "number",
            6,
        ),
        Chart(
            "Versions in use",
            "short",
            "Processes by the pretrained model they use. Two for long: a scorer has not received what was promoted.",
            (
                Query("count by (pretrained) (fraud_model_info{%})", "scorers: {{pretrained}}"),
                Query("count by (pretrained) (fraud_learner_model_info{%})", "learner: {{pretrained}}"),
            ),
            "number",
            18,
        ),
    ),
)
