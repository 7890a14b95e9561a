"""Write a case as text for a terminal, and as one HTML page for a case file."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from fraud_service.domain.reasons import rest
from fraud_service.domain.text import money, visible
from fraud_service.domain.time import rfc3339
from fraud_service.evaluation.html import escaped, page, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fraud_service.verification.explain import Case

PROOFS: Final = {
    "identical": "The decision recomputed from the card's transactions is identical to the last bit.",
    "from_features": "Transactions of the card expired. The decision recomputed from the logged features is identical.",
}
MAX_CONTRIBUTIONS: Final = 12

Section = tuple[str, list[list[Any]]]


def proof(case: Case) -> str:
    """Return the result of recomputing the decision, as a sentence."""
    return PROOFS.get(case.proof) or f"The recomputed decision differs: {case.proof}. {case.detail}"


def sections(case: Case) -> Iterator[Section]:
    """Yield each heading of the case with its rows of name and value."""
    score = case.score
    yield (
        "Decision",
        [
            ["outcome", score.outcome.value],
            ["score", score.score],
            ["pretrained", score.pretrained],
            ["online", score.online],
            ["weight of the online model", score.online_weight],
            ["model", score.model],
            ["snapshot", score.snapshot],
            ["snapshot was stale", "yes" if score.is_stale else "no"],
            *([["alert", case.alert_id]] if case.alert_id else []),
        ],
    )
    yield "Reasons", [*_reasons(case)]
    event = case.transaction
    yield (
        "Transaction",
        [
            ["transaction", score.transaction_id],
            ["card", score.card_id],
            ["event time", rfc3339(score.timestamp)],
            ["merchant", score.merchant_id],
            ["amount", money(score.amount, score.currency)],
            *([["country", event.country], ["entry mode", event.entry_mode]] if event else []),
            ["log", f"{case.place['topic']}[{case.place['partition']}]@{case.place['offset']}"],
        ],
    )
    if len(case.uses) > 1:
        yield f"Payments under this id; this is number {case.number} of those that were scored", [*_uses(case)]
    yield "What became known later", [*_known(case)] or [["nothing", ""]]
    if case.base is not None:
        yield "Contributions to the logit of the score", [*_contributions(case, case.base)]
    for title, figures in (
        ("The card just before", case.profile),
        ("Risk of the merchant", case.merchant_risk),
        ("Risk of the card", case.card_risk),
        ("Snapshot", case.snapshot),
    ):
        yield title, [["unknown", ""]] if figures is None else [*_rows(figures)]


def _reasons(case: Case) -> Iterator[list[Any]]:
    found = case.score.reasons
    for reason in found:
        yield [reason.code, f"{reason.text} ({reason.contribution:+.3f})"]
    if case.base is not None and found:
        yield ["all others", f"({rest(case.contributions.values(), (one.contribution for one in found)):+.3f})"]


def _contributions(case: Case, base: float) -> Iterator[list[Any]]:
    strongest = [*case.contributions.items()][:MAX_CONTRIBUTIONS]
    rest = math.fsum([*case.contributions.values()][MAX_CONTRIBUTIONS:])
    yield ["base", f"{base:+.4f}"]
    yield from ([f"{name} = {_feature(case, name)}", f"{value:+.4f}"] for name, value in strongest)
    yield ["all others", f"{rest:+.4f}"]


def _uses(case: Case) -> Iterator[list[Any]]:
    for one in case.uses:
        paid = f"{money(one.amount, one.currency)} at {one.merchant_id}, {rfc3339(one.timestamp)}"
        yield [one.kind, f"{paid}: {one.outcome}, score {one.score:.4f}"]


def _known(case: Case) -> Iterator[list[Any]]:
    for label in case.labels:
        yield [
            f"label, {rfc3339(label.labelled_at)}",
            f"{_truth(is_fraud=label.is_fraud)}, from {label.source.value}",
        ]
    for one in case.examples:
        corrects = ", a correction" if one["corrects"] else ""
        yield [f"trained at {one['boundary']}", f"{_truth(is_fraud=one['is_fraud'])}{corrects}"]


def _feature(case: Case, name: str) -> str:
    return "-" if case.score.features is None else f"{getattr(case.score.features, name):.6g}"


def _rows(figures: Mapping[str, Any]) -> Iterator[list[Any]]:
    for name, figure in figures.items():
        if isinstance(figure, list) and figure and isinstance(figure[0], dict):
            for number, one in enumerate(figure, start=1):
                yield [
                    f"{name.replace('_', ' ')}, {number}",
                    ", ".join(f"{part} {value}" for part, value in one.items()),
                ]
        else:
            yield [name.replace("_", " "), figure]


def _truth(*, is_fraud: bool) -> str:
    return "fraud" if is_fraud else "legitimate"


def text(case: Case) -> str:
    """Write the case for a terminal. A line break within a value is escaped."""
    lines = [proof(case)]
    for title, rows in sections(case):
        if rows:
            width = max(len(str(name)) for name, _ in rows)
            lines += ["", title, *(f"  {name!s:<{width}}  {'-' if value is None else value}" for name, value in rows)]
    return "\n".join(visible(line.rstrip()) for line in lines)


def html(case: Case) -> str:
    """Write the case as one page."""
    body = f"<p><strong>{escaped(proof(case))}</strong></p>\n"
    for title, rows in sections(case):
        body += f"<h2>{escaped(title)}</h2>\n{table([], rows)}" if rows else ""
    return page(f"Transaction {case.score.transaction_id}", body)
