"""Coverage-guided fuzzing of everything that reads bytes from outside: `make fuzz SECONDS=60`, in seconds per target.

A finding is an undeclared exception, more than five seconds on one input, or more than two gigabytes of memory.
libFuzzer writes the input to `.cache/fuzz`. The run ends with one JSON line. Hypothesis runs the same decoders in
`tests/unit/domain/test_codec.py`, and the targets of `fuzz.targets` in `test_targets.py`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import atheris
import structlog

with atheris.instrument_imports(
    include=["fraud_service.domain", "fraud_service.security", "fraud_service.kafka.messages"]
):
    from fuzz.targets import TARGETS as ATTACKS
    from support.steps import Steps, message
    from unit.domain.test_codec import DECODERS

    from fraud_service.domain.errors import InvalidEvent, InvalidRecord
    from fraud_service.domain.events import decode_label, decode_transaction
    from fraud_service.security import card_data

FOUND = Path(".cache/fuzz")
SEEDS = Path(".cache/fuzz-seeds")
PAYMENT = b'{"transaction_id":"t","timestamp":1,"card_id":"4242 4242 4242 4242","merchant_id":"m","amount":"1"}'


def mask_card_data(data: bytes) -> None:
    """Masking removes all card data, and changes nothing else."""
    masked = card_data.mask_bytes(data)
    if card_data.find_card_data(data) is None:
        assert masked == data


STEPS = Steps()


def process_message(data: bytes) -> None:
    """Scorer, learner and tokenizer accept any message, and their output fits a topic."""
    STEPS.take(message(data))


def decoding(decode) -> None:
    def target(data: bytes) -> None:
        with suppress(InvalidEvent, InvalidRecord):
            decode(data)

    return target


TARGETS = {
    "transaction": (decoding(decode_transaction), PAYMENT),
    "label": (decoding(decode_label), b'{"transaction_id":"t","card_id":"c","is_fraud":true,"labelled_at":1}'),
    "mask_card_data": (mask_card_data, PAYMENT),
    "process_message": (process_message, b"\0\0\0" + PAYMENT),
    **ATTACKS,
    **{name: (decoding(decode), good) for name, (decode, good) in DECODERS.items()},
}


def fuzz(name: str, seconds: int) -> None:
    """Fuzz one target until the time is over or it fails."""
    target, seed = TARGETS[name]
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())  # rejected records are no findings
    corpus = SEEDS / name
    corpus.mkdir(parents=True, exist_ok=True)
    (corpus / "good").write_bytes(seed)
    options = [f"-max_total_time={seconds}", "-timeout=5", "-rss_limit_mb=2048", f"-artifact_prefix={FOUND}/{name}-"]
    atheris.Setup([sys.argv[0], *options, "-verbosity=0", str(corpus)], lambda data: target(data) and None)
    atheris.Fuzz()


def main() -> int:
    """Fuzz each target in a separate process; returns 0 without findings."""
    if len(sys.argv) > 2:
        fuzz(sys.argv[1], int(sys.argv[2]))
        return 0
    FOUND.mkdir(parents=True, exist_ok=True)
    findings = []
    for name in TARGETS:
        done = subprocess.run([sys.executable, "-m", "fuzz", name, sys.argv[1]], check=False)
        findings += [name] if done.returncode else []
    print(json.dumps({"targets": len(TARGETS), "seconds_each": int(sys.argv[1]), "findings": findings}))
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
