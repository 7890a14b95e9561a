"""Stored profiles of earlier schemas, and the features to which they lead.

`python tests/support/old_profiles.py --write` computes the features again. This is necessary when a feature is added.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Final

from fraud_service.domain.events import decode_transaction
from fraud_service.domain.features import extract
from fraud_service.domain.profile import decode_profile, encode_profile
from fraud_service.domain.risk import NO_RISK

FOLDER: Final = Path(__file__).parents[1] / "unit/domain"


def write() -> None:
    files = sorted(FOLDER.glob("profile_v*.json"))
    stored = {file: json.loads(file.read_text()) for file in files}
    (payments,) = [[json.dumps(row).encode() for row in one["after"]] for one in stored.values() if "after" in one]
    for file, content in stored.items():
        profile = decode_profile(base64.b64decode(content["profile"]))
        content["features"] = []
        for payment in map(decode_transaction, payments):
            content["features"].append(list(extract(payment, profile, NO_RISK, NO_RISK, 0).vector()))
            profile.update(payment)
            profile = decode_profile(encode_profile(profile))
        file.write_text(json.dumps(content, separators=(",", ":")) + "\n")


if __name__ == "__main__" and "--write" in sys.argv:
    write()
