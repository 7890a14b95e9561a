"""Tasks of an operator: reset, repartition, erase, re-sign, redrive, rebuild, and models."""
