"""Prometheus metrics, one module per role. Other modules compute the values.

Label values come from closed sets: never a card, a merchant or a transaction. One info metric shows the model version.
"""
