"""Send each key to each topic, then print the event id of that many alerts."""

import asyncio
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer


async def main(bootstrap: str, alerts: str, count: str, topics: str, keys: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True) as producer:
        for topic in topics.split(","):
            for key in keys.split(","):
                await producer.send_and_wait(topic, key.encode(), key=key.encode())
    consumer = AIOKafkaConsumer(
        alerts,
        bootstrap_servers=bootstrap,
        group_id=f"aiokafka-{alerts}",
        isolation_level="read_committed",
        auto_offset_reset="earliest",
    )
    async with consumer:
        for _ in range(int(count)):
            message = await consumer.getone()
            print(dict(message.headers)["ce_id"].decode())


asyncio.run(main(*sys.argv[1:]))
