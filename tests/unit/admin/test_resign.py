"""Re-signing accepts only records that are signed or that the operator vouches for."""

from __future__ import annotations

import pytest

from fraud_service.admin.resign import LenientKeyring, _models_in_use
from fraud_service.domain.detector import MAX_MODELS
from fraud_service.domain.errors import RejectedRecord
from fraud_service.kafka.model_topic import REFIT_KEY, SWITCH_KEY, PromotedModel
from fraud_service.security.signatures import Keyring

pytestmark = pytest.mark.attack

KEYS = {"2026": b"k" * 32}
RECORD = ("risk", b"card:c", b"row")
SIGNED = Keyring(KEYS, "2026", "production").sign_headers(*RECORD, [])
UNBOUND = Keyring(KEYS, "2026", deployment=None).sign_headers(*RECORD, [])
STAGING = Keyring(KEYS, "2026", "staging").sign_headers(*RECORD, [])


def lenient(**allowed: bool) -> LenientKeyring:
    return LenientKeyring(KEYS, "2026", "production", **allowed)


@pytest.mark.parametrize(
    ("allowed", "accepted"),
    [
        ({}, [SIGNED]),
        ({"unbound": True}, [SIGNED, UNBOUND]),
        ({"unsigned": True}, [SIGNED, []]),
        ({"unsigned": True, "unbound": True}, [SIGNED, UNBOUND, []]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_only_records_that_the_operator_vouches_for_are_accepted(allowed, accepted):
    for headers in (SIGNED, UNBOUND, STAGING, []):
        if headers in accepted:
            lenient(**allowed).require_signature(*RECORD, headers)
        else:
            with pytest.raises(RejectedRecord):
                lenient(**allowed).require_signature(*RECORD, headers)


def test_the_newest_models_switch_and_re_fit_report_are_re_signed_in_order():
    switch, refit = SWITCH_KEY.encode(), REFIT_KEY.encode()
    keys = [switch, refit, *(b"forest-%d" % number for number in range(2 * MAX_MODELS)), b"forest-1", switch]
    records = [PromotedModel(key, b"%d" % place, 0, None) for place, key in enumerate(keys)]
    found = _models_in_use(records)
    models = [key for key, _ in found if key not in {switch, refit}]
    assert models == [*(b"forest-%d" % number for number in range(MAX_MODELS + 1, 2 * MAX_MODELS)), b"forest-1"]
    assert found[-1] == (switch, b"%d" % (len(keys) - 1))
    assert (refit, b"1") in found
