package fraud.peer;

import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Instant;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.UUID;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.streams.processor.api.RecordMetadata;

/** Headers of alerts (CloudEvents 1.0, binary mode) and of dead letters. */
final class Headers {
    private static final UUID ALERTS = UUID.fromString("6f1c1f0e-5b1e-5d6c-9d59-0a4c8a1f3b77");
    private static final DateTimeFormatter RFC_3339 =
            DateTimeFormatter.ofPattern("uuuu-MM-dd'T'HH:mm:ss.SSSX").withZone(ZoneOffset.UTC);

    private Headers() {}

    static org.apache.kafka.common.header.Headers ofAlert(Transaction transaction) {
        org.apache.kafka.common.header.Headers headers = new RecordHeaders();
        add(headers, "ce_specversion", "1.0");
        add(headers, "ce_id", named(payment(transaction)).toString());
        add(headers, "ce_source", "/fraud-service/scorer");
        add(headers, "ce_type", "fraud-service.alert.v1");
        add(headers, "ce_time", RFC_3339.format(Instant.ofEpochMilli(transaction.timestamp())));
        add(headers, "ce_subject", transaction.id());
        add(headers, "content-type", "application/json");
        return headers;
    }

    static org.apache.kafka.common.header.Headers ofDeadLetter(Unreadable error, RecordMetadata source) {
        org.apache.kafka.common.header.Headers headers = new RecordHeaders();
        add(headers, "fraud-reason", error.reason);
        add(headers, "fraud-detail", error.getMessage());
        add(headers, "fraud-source-topic", source.topic());
        add(headers, "fraud-source-partition", Integer.toString(source.partition()));
        add(headers, "fraud-source-offset", Long.toString(source.offset()));
        return headers;
    }

    private static void add(org.apache.kafka.common.header.Headers headers, String name, String value) {
        headers.add(name, value.getBytes(StandardCharsets.UTF_8));
    }

    /** What names a payment: its alert has the same name in every run, and no other payment has it. */
    private static String payment(Transaction transaction) {
        return "%d/%016x/%s%s%s%s".formatted(
                transaction.timestamp(),
                Double.doubleToLongBits(transaction.amount()),
                transaction.currency(),
                sized(transaction.cardId()),
                sized(transaction.id()),
                sized(transaction.merchantId()));
    }

    private static String sized(String text) {
        return "/" + text.getBytes(StandardCharsets.UTF_8).length + "/" + text;
    }

    /** A UUID of version 5: the same alert always has the same name. */
    private static UUID named(String name) {
        try {
            MessageDigest sha1 = MessageDigest.getInstance("SHA-1");
            java.nio.ByteBuffer space = java.nio.ByteBuffer.allocate(16);
            space.putLong(ALERTS.getMostSignificantBits()).putLong(ALERTS.getLeastSignificantBits());
            sha1.update(space.array());
            java.nio.ByteBuffer digest = java.nio.ByteBuffer.wrap(sha1.digest(name.getBytes(StandardCharsets.UTF_8)));
            long most = digest.getLong() & ~0xF000L | 0x5000L;
            long least = digest.getLong() & 0x3FFFFFFFFFFFFFFFL | 0x8000000000000000L;
            return new UUID(most, least);
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException(error); // every Java has it
        }
    }
}
