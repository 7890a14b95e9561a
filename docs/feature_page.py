"""The page of features: their contract, and the meaning of reason codes, entry modes and zones."""

from __future__ import annotations

from importlib.metadata import version
from inspect import cleandoc
from typing import TYPE_CHECKING, Annotated, Final, get_args, get_origin, get_type_hints

import msgspec
from markdown_parts import names, page, table

from fraud_service.domain import decision, entry_modes, local_time, profile, reasons
from fraud_service.domain.features import contract

if TYPE_CHECKING:
    from collections.abc import Iterable

ITSELF: Final = "this transaction"  # the window of a feature that needs no history


LIMITS: Final = {
    "HOURS_KEPT": "hourly buckets, with count and total amount",
    "DAYS_KEPT": "daily buckets, with count, total, largest amount and number of unusually high amounts",
    "RECENT_KEPT": "last transactions with their decisions, to recognise duplicates and reused ids",
    "MERCHANTS_KEPT": "merchants most recently paid, with the number of visits",
    "COUNTRIES_KEPT": "countries most recently seen",
    "DEVICES_KEPT": "devices most recently seen",
}


def feature_page() -> str:
    """Write the feature contract: the table first, then its rules."""
    summary, _, rules = cleandoc(contract.__doc__ or "").partition("\n\n")
    return page(
        "Features",
        summary,
        f"Version of the contract: {contract.VERSION}. The columns of the models have the order of this table. "
        "*Cold* is the value for a new card at a new merchant.",
        table(("#", "name", "meaning", "unit", "window", "cold"), _feature_rows()),
        "## Rules for all features",
        rules,
        "## Entry modes",
        "Case, spaces, hyphens, underscores and slashes make no difference. Two digits are the PAN entry mode of "
        "ISO 8583, data element 22. Its third digit may follow, and a leading zero may be missing before one "
        "digit. Any other text counts as absent, and `fraud_unknown_entry_modes_total` counts the payment. With "
        "`FRAUD_REJECT_UNKNOWN_ENTRY_MODES=true`, it becomes a dead letter (`invalid_field`).",
        table(
            ("entry mode", "`is_card_not_present`", "also written"),
            (
                (f"`{mode}`", str(int(mode in entry_modes.CARD_NOT_PRESENT)), names(aliases.split()))
                for mode, aliases in entry_modes.ALIASES.items()
            ),
        ),
        _local_time(),
        table(("country", "zone", "other zones, not used"), _zones()),
        "## Profile of a card",
        "A profile has a bounded size:",
        table(
            ("limit", "kept", "what"),
            ((f"`{name}`", str(getattr(profile, name)), text) for name, text in LIMITS.items()),
        ),
        _usual_amount(),
        _reason_codes(),
        table(
            ("code", "given when", "features"),
            (
                *((f"`{code}`", one.meaning, names(one.features)) for code, one in reasons.CODES.items()),
                *((f"`{code}`", meaning, "—") for code, meaning in OTHER_CODES.items()),
            ),
        ),
    )


def feature_meta(name: str) -> msgspec.Meta:
    """Return the annotation of a feature."""
    hint = get_type_hints(contract.Features, include_extras=True)[name]
    metas = [meta for meta in get_args(hint) if isinstance(meta, msgspec.Meta)]
    if get_origin(hint) is not Annotated or len(metas) != 1:
        raise TypeError(f"the feature {name} needs exactly one msgspec.Meta that documents it")
    return metas[0]


def _feature_rows() -> Iterable[tuple[str, ...]]:
    for number, name in enumerate(contract.NAMES, start=1):
        meta = feature_meta(name)
        facts = meta.extra or {}
        cold = "as given" if facts["window"] == ITSELF else f"{facts['cold']:g}"
        yield str(number), f"`{name}`", meta.description or "", facts["unit"], facts["window"] or "—", cold


OTHER_CODES: Final = {
    reasons.OVERALL_PATTERN: "The score is high, but no code above applies. It is then the only reason, or the second "
    f"after `{decision.ID_REUSED.code}`.",
    decision.NO_MODEL.code: "No model could score the payment. It goes to review.",
    decision.ID_REUSED.code: "Another payment of the card had the same transaction id. Always the first reason. The "
    "payment goes to review, unless its score declines it.",
}


def _reason_codes() -> str:
    return cleandoc(f"""
    ## Reason codes

    An alert has at most {reasons.MAX_REASONS} reasons, the strongest first. A reason has a code, a text and a
    contribution to the logit of the score.

    * Programs use the code. A release may add codes. It never renames a code, or gives it another meaning.
    * The text is a sentence in plain English. You can use it in a letter to the customer. It has amounts with currency,
      and times with their offset from UTC. It may change with each release.
    * A reason is given only if its text is true and counts against the payment: the features that the text is about
      raise the score, and all features of the code together by at least {reasons.MIN_CONTRIBUTION}.
    * Every feature belongs to exactly one code. The contribution of a reason is that of all features of its code.
    * `rest` in the alert is what the reasons leave. It may be negative. The logit of the score is `base`, plus the
      contributions of the reasons, plus `rest`. It is also `base` plus all `contributions`.
    """)


def _local_time() -> str:
    return cleandoc(f"""
    ## Local time

    `hour_of_day`, `is_night` and `is_weekend` are in the local time of the payment. Its offset from UTC is the first of
    these:

    1. `utc_offset_min`, in minutes. 0 says that the local time is UTC.
    2. The offset that the text of `timestamp` states, such as `+02:00`. `Z`, `+00:00` and `-00:00` state none,
       because producers write UTC for payments of any place.
    3. That of the zone of `country`, by its ISO 3166 code of two letters, three letters or three digits.
    4. That of the zone `FRAUD_TIME_ZONE`.

    In a file, a time in a named zone states the offset of that zone (`--time-zone`, or the type of a Parquet column).
    The score has the offset that was used, in `utc_offset_min`; it leaves out 0. `replay` takes it from there. The
    rules of zones are those of the package `tzdata` {version("tzdata")}, not those of the machine.

    Most countries have one zone. In the others, every payment has the zone in which most people live:
    """)


def _zones() -> Iterable[tuple[str, ...]]:
    for country, (main, *others) in sorted(local_time.zones_by_country().items()):
        if others:
            yield country, f"`{main}`", str(len(others))


def _usual_amount() -> str:
    return cleandoc(f"""
    ## Usual amount of a card

    A card's usual amount is a running mean on a logarithmic scale, `x = ln(1 + amount)`. On this scale, twice the
    amount is the same step for small and large amounts. A single payment can move the mean only a little (bounded
    influence, after Huber). The first amount sets the mean to its `x`. The deviation starts at
    {profile.DEVIATION_PRIOR}. Every later amount, number *n* + 1 of the card, changes both:

    1. `step` is `x` minus the mean, limited to {profile.CLIP_DEVIATIONS:g} deviations in both directions.
    2. `rate` is 1 / (*n* + 1), but at least {profile.MIN_LEARNING_RATE}, so old payments lose weight.
    3. The mean grows by `rate × step`.
    4. The deviation grows by `rate × (|step| - deviation)`. So it is a running mean of the absolute steps.

    *amount_zscore* is `x` minus the mean, divided by the deviation. The divisor is at least
    {profile.DEVIATION_FLOOR}, so that small differences stay small for a card with equal amounts. Before the first
    amount it is 0. An amount is *unusually high* if its amount_zscore is above {profile.OUTLIER_DEVIATIONS:g} and the
    card has at least {profile.MIN_PAYMENTS_TO_JUDGE} earlier amounts. Both use the profile before the payment.
    """)
