"""Run the service with a patient snapshot reader.

A scorer waits at most a second for a snapshot that was just published. On a busy machine that can be too short, and the
score is marked as stale. Tests that compare every byte of every score run their scorers with this module.
"""

from __future__ import annotations

import runpy

from fraud_service.processors import snapshot_reader

snapshot_reader.REFRESH_TIMEOUT_S = 60.0

if __name__ == "__main__":
    runpy.run_module("fraud_service", run_name="__main__")
