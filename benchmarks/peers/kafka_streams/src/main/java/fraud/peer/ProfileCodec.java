package fraud.peer;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Objects;
import org.apache.kafka.common.errors.SerializationException;

/**
 * A profile in about a kilobyte: fixed fields, bytes where bytes are enough, each name of a model once.
 *
 * <p>Every processor has its own: it fills one and the same object, so that the largest object of the hot path is not
 * made anew for every record. That is why the store holds bytes and has no serde that tasks would share.
 */
final class ProfileCodec {
    private static final byte SCHEMA = 1;
    private static final int LARGEST = 16_384; // bytes; all lists full, with the longest names

    private final ByteBuffer out = ByteBuffer.allocate(LARGEST);
    private final Profile profile = new Profile();

    byte[] encode(Profile from) {
        out.clear();
        out.put(SCHEMA).putLong(from.count).putLong(from.firstSeen).putLong(from.lastSeen);
        out.putDouble(from.usual).putDouble(from.deviation);
        out.putDouble(from.latitude).putDouble(from.longitude).putLong(from.placeTime);
        write(from.hours, false);
        write(from.days, true);
        write(from.merchants, true);
        write(from.countries, false);
        write(from.devices, false);
        writeRecent(from);
        return Arrays.copyOf(out.array(), out.position());
    }

    private void write(Buckets buckets, boolean isDay) {
        out.put((byte) buckets.size);
        for (int at = 0; at < buckets.size; at++) {
            out.putInt((int) buckets.numbers[at]).putInt(buckets.counts[at]).putDouble(buckets.totals[at]);
            if (isDay) {
                out.putDouble(buckets.largest[at]).putInt(buckets.high[at]);
            }
        }
    }

    private void write(Recency recency, boolean isCounted) {
        out.put((byte) recency.size);
        for (int at = 0; at < recency.size; at++) {
            out.putInt(recency.prints[at]);
            if (isCounted) {
                out.putInt(recency.counts[at]);
            }
        }
    }

    private void writeRecent(Profile from) {
        out.put((byte) from.recent);
        String model = null;
        String snapshot = null;
        for (int at = 0; at < from.recent; at++) {
            Decision decision = from.recentDecisions[at];
            out.putLong(from.recentIds[at]).putLong(from.recentTimes[at]).putDouble(from.recentAmounts[at]);
            out.putInt(from.recentMerchants[at]);
            boolean again = Objects.equals(decision.model(), model) && Objects.equals(decision.snapshot(), snapshot);
            out.put((byte) (decision.outcome().ordinal() | (decision.isStale() ? 4 : 0) | (again ? 8 : 0)));
            out.putDouble(decision.score()).putDouble(decision.pretrainedLogit());
            out.putDouble(decision.onlineLogit()).putDouble(decision.onlineWeight());
            if (!again) {
                write(model = decision.model());
                write(snapshot = decision.snapshot());
            }
        }
    }

    private void write(String text) {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        out.put((byte) bytes.length).put(bytes);
    }

    /** Reads a profile back; null is that of a card never seen. */
    Profile decode(byte[] data) {
        if (data == null) {
            return profile.clear();
        }
        ByteBuffer in = ByteBuffer.wrap(data);
        if (in.get() != SCHEMA) {
            throw new SerializationException("a profile of another schema: " + data[0]);
        }
        Profile to = profile;
        to.count = in.getLong();
        to.firstSeen = in.getLong();
        to.lastSeen = in.getLong();
        to.usual = in.getDouble();
        to.deviation = in.getDouble();
        to.latitude = in.getDouble();
        to.longitude = in.getDouble();
        to.placeTime = in.getLong();
        read(in, to.hours, false);
        read(in, to.days, true);
        read(in, to.merchants, true);
        read(in, to.countries, false);
        read(in, to.devices, false);
        readRecent(in, to);
        return to;
    }

    private static void read(ByteBuffer in, Buckets buckets, boolean isDay) {
        buckets.size = in.get();
        for (int at = 0; at < buckets.size; at++) {
            buckets.numbers[at] = in.getInt();
            buckets.counts[at] = in.getInt();
            buckets.totals[at] = in.getDouble();
            if (isDay) {
                buckets.largest[at] = in.getDouble();
                buckets.high[at] = in.getInt();
            }
        }
    }

    private static void read(ByteBuffer in, Recency recency, boolean isCounted) {
        recency.size = in.get();
        for (int at = 0; at < recency.size; at++) {
            recency.prints[at] = in.getInt();
            recency.counts[at] = isCounted ? in.getInt() : 1;
        }
    }

    private static void readRecent(ByteBuffer in, Profile to) {
        to.recent = in.get();
        String model = null;
        String snapshot = null;
        for (int at = 0; at < to.recent; at++) {
            to.recentIds[at] = in.getLong();
            to.recentTimes[at] = in.getLong();
            to.recentAmounts[at] = in.getDouble();
            to.recentMerchants[at] = in.getInt();
            byte flags = in.get();
            double score = in.getDouble();
            double pretrained = in.getDouble();
            double online = in.getDouble();
            double weight = in.getDouble();
            if ((flags & 8) == 0) {
                model = readText(in);
                snapshot = readText(in);
            }
            to.recentDecisions[at] = new Decision(
                    Decision.Outcome.ALL[flags & 3], score, pretrained, online, weight, model, snapshot,
                    (flags & 4) != 0);
        }
    }

    private static String readText(ByteBuffer in) {
        int length = in.get();
        String text = new String(in.array(), in.position(), length, StandardCharsets.UTF_8);
        in.position(in.position() + length);
        return text;
    }
}
