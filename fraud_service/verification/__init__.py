"""Verify the topics: records complete, in order and unaltered; decisions and snapshots recomputed bit for bit."""
