"""Entry modes: each known spelling has one meaning, and nothing else has any."""

from __future__ import annotations

import pytest

from fraud_service.domain.entry_modes import ALIASES, CARD_NOT_PRESENT, EntryMode, entry_mode

SPELLINGS = {
    EntryMode.ECOMMERCE: (
        *("ecommerce", "E-Commerce", "e commerce", "ECOM", "Online Transaction", "CARD_NOT_PRESENT", "card-on-file"),
        *("81", "812", "0812", "81.0", "9", "09", "100", "10", "82", " Internet\t"),
    ),
    EntryMode.KEYED: (
        "keyed",
        "Key-Entered",
        "MANUAL",
        "MOTO",
        "Mail Order / Telephone Order",
        "1",
        "01",
        "010",
        "011",
        "79",
    ),
    EntryMode.CHIP: ("chip", "CHIP", "Chip & PIN", "EMV", "Chip Transaction", "5", "05", "051", "0051", "95", "5.0"),
    EntryMode.CONTACTLESS: ("contactless", "NFC", "Tap & Pay", "07", "071", "91", "912"),
    EntryMode.MAGSTRIPE: ("magstripe", "Magnetic Stripe", "Swipe Transaction", "90", "901", "80", "2"),
    EntryMode.OPTICAL: ("QR code", "03"),
    EntryMode.UNSPECIFIED: (None, "", " ", "-", "00", "000", "0", "Unknown", "N/A", "99"),
}


@pytest.mark.parametrize(("mode", "text"), [(mode, text) for mode, texts in SPELLINGS.items() for text in texts])
def test_a_spelling_means_its_entry_mode(mode, text):
    assert entry_mode(text) is mode


@pytest.mark.parametrize("text", ["carrier pigeon", "51", "1000", "8123", "77", "ecommerce2", "-81-x", "chip;", "."])
def test_any_other_text_has_no_meaning(text):
    assert entry_mode(text) is None


def test_no_spelling_has_two_meanings_and_case_and_separators_make_no_difference():
    aliases = [alias for mode, texts in ALIASES.items() for alias in (mode.value, *texts.split())]
    assert len(aliases) == len(set(aliases))
    for mode, texts in ALIASES.items():
        for alias in (mode.value, *texts.split()):
            assert entry_mode(alias) is entry_mode(alias.upper()) is entry_mode(f" {'-'.join(alias)}_") is mode


def test_only_keyed_and_online_payments_are_made_without_the_card():
    assert {EntryMode.KEYED, EntryMode.ECOMMERCE} == CARD_NOT_PRESENT
