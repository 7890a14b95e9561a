// Sends each key to each topic, then prints the event id of that many alerts.
import { Kafka, Partitioners, logLevel } from "kafkajs";

const [bootstrap, alerts, count, topics, keys] = process.argv.slice(2);
const kafka = new Kafka({ brokers: [bootstrap], logLevel: logLevel.ERROR });
const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner, idempotent: true });
await producer.connect();
for (const topic of topics.split(",")) {
  await producer.send({ topic, messages: keys.split(",").map((key) => ({ key, value: key })) });
}
await producer.disconnect();

const consumer = kafka.consumer({ groupId: `node-${alerts}` });
let left = Number(count);
const finish = new Promise((resolve) => {
  consumer.on(consumer.events.CRASH, ({ payload }) => {
    console.error(payload.error.message);
    process.exit(1);
  });
  consumer.connect().then(async () => {
    await consumer.subscribe({ topic: alerts, fromBeginning: true });
    await consumer.run({
      eachMessage: async ({ message }) => {
        JSON.parse(message.value);
        console.log(message.headers.ce_id.toString());
        if (--left === 0) resolve();
      },
    });
  });
});
await finish;
process.exit(0);
