"""Quix and Kafka: the only place that knows them. Thin topologies around the pure core."""
