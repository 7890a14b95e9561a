"""Send each key to each topic, then print the event id of that many alerts."""

import sys
from itertools import islice

from kafka import KafkaConsumer, KafkaProducer

bootstrap, alerts, count, topics, keys = sys.argv[1:]
producer = KafkaProducer(bootstrap_servers=bootstrap)
for topic in topics.split(","):
    for key in keys.split(","):
        producer.send(topic, key.encode(), key=key.encode()).get(30)
producer.close()
consumer = KafkaConsumer(
    alerts,
    bootstrap_servers=bootstrap,
    group_id=f"kafka-python-{alerts}",
    isolation_level="read_committed",
    auto_offset_reset="earliest",
)
for message in islice(consumer, int(count)):
    print(dict(message.headers)["ce_id"].decode())
consumer.close()
