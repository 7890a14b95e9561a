"""Prometheus metrics, one module a role. They show values that others computed, and decide nothing.

Label values come from closed sets: never a card, a merchant or a transaction. One info metric shows the model version.
"""
