"""Kafka clients and topics on confluent-kafka alone, without Quix."""
