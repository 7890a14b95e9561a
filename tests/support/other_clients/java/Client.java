import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Sends each key to each topic, then prints the event id of that many alerts. */
public class Client {
    public static void main(String[] args) throws Exception {
        Map<String, Object> sending = Map.of("bootstrap.servers", args[0]);
        try (var producer = new KafkaProducer<>(sending, new StringSerializer(), new StringSerializer())) {
            for (String topic : args[3].split(",")) {
                for (String key : args[4].split(",")) {
                    producer.send(new ProducerRecord<>(topic, key, key)).get();
                }
            }
        }
        Map<String, Object> reading = Map.of(
            "bootstrap.servers", args[0], "group.id", "java-" + args[1], "isolation.level", "read_committed",
            "auto.offset.reset", "earliest");
        try (var consumer = new KafkaConsumer<>(reading, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(args[1]));
            for (int left = Integer.parseInt(args[2]); left > 0; ) {
                for (var record : consumer.poll(Duration.ofSeconds(1))) {
                    System.out.println(new String(record.headers().lastHeader("ce_id").value(), StandardCharsets.UTF_8));
                    left--;
                }
            }
        }
    }
}
