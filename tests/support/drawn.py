"""Messages drawn by Hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st
from support.malformed import MALFORMED
from support.worlds import MONDAY, transaction

from fraud_service.domain.events import encode


@st.composite
def messages(draw) -> list[tuple[bytes | None, bytes | None]]:
    """Draw payments of a few cards (some duplicates, some large enough to flag) and unreadable messages."""
    sent: list[tuple[bytes | None, bytes | None]] = []
    for number in range(draw(st.integers(1, 24))):
        if draw(st.integers(0, 5)) == 0:
            value, key, _ = draw(st.sampled_from(MALFORMED[:25]))
            sent.append((value, key))
            continue
        card = f"card-{draw(st.integers(0, 4))}"
        name = f"t-{draw(st.integers(0, 30))}"
        amount = draw(st.sampled_from([5.0, 40.0, 900.0]))
        payment = transaction(name, MONDAY + number * 60_000, card_id=card, amount=amount)
        sent.append((encode(payment), card.encode()))
    return sent
