"""The features of a transaction: their contract, and the code that computes them."""

from fraud_service.domain.features.contract import MAX_AGE_H, NAMES, VERSION, Features
from fraud_service.domain.features.extraction import extract

__all__ = ["MAX_AGE_H", "NAMES", "VERSION", "Features", "extract"]
