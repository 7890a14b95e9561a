"""Measure how good scores are, and report it. Needs the `evaluation` extra; serving code never imports it."""
