"""Kafka clients and topics, through confluent-kafka alone. Nothing here knows Quix."""
