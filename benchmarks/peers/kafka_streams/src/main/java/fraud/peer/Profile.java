package fraud.peer;

import java.nio.charset.StandardCharsets;
import java.util.zip.CRC32;
import net.jpountz.xxhash.XXHash64;
import net.jpountz.xxhash.XXHashFactory;

/**
 * The state of one card, as docs/features.md describes it: bounded, folded one transaction at a time.
 *
 * <p>One object is filled again for every record (see {@link ProfileCodec}); nothing keeps a reference to it.
 */
final class Profile {
    static final long HOUR = 3_600_000;
    static final long DAY = 24 * HOUR;
    static final int HOURS_KEPT = 24;
    static final int DAYS_KEPT = 30;
    static final int RECENT_KEPT = 16;
    static final int MERCHANTS_KEPT = 32;
    static final int OTHERS_KEPT = 8;

    private static final double REACH = 3;
    private static final double HIGH = 3;
    private static final double SLOWEST = 0.02;
    private static final double DEVIATION_PRIOR = 0.5;
    private static final double DEVIATION_FLOOR = 0.05;
    private static final int ENOUGH_TO_JUDGE = 5;
    private static final XXHash64 HASH = XXHashFactory.fastestJavaInstance().hash64();

    long count;
    long firstSeen;
    long lastSeen;
    double usual;
    double deviation;
    final Buckets hours = new Buckets(HOURS_KEPT);
    final Buckets days = new Buckets(DAYS_KEPT);
    final long[] recentIds = new long[RECENT_KEPT];
    final long[] recentTimes = new long[RECENT_KEPT];
    final double[] recentAmounts = new double[RECENT_KEPT];
    final int[] recentMerchants = new int[RECENT_KEPT];
    final Decision[] recentDecisions = new Decision[RECENT_KEPT];
    int recent;
    final Recency merchants = new Recency(MERCHANTS_KEPT);
    final Recency countries = new Recency(OTHERS_KEPT);
    final Recency devices = new Recency(OTHERS_KEPT);
    double latitude;
    double longitude;
    long placeTime;

    private final CRC32 crc = new CRC32();

    Profile() {
        clear();
    }

    /** Makes it that of a card never seen. */
    Profile clear() {
        count = firstSeen = lastSeen = placeTime = 0;
        usual = 0;
        deviation = DEVIATION_PRIOR;
        hours.size = days.size = recent = merchants.size = countries.size = devices.size = 0;
        latitude = longitude = Double.NaN;
        return this;
    }

    boolean hasPlace() {
        return !Double.isNaN(latitude);
    }

    /** The decision made on this transaction if it is among the last ones, or null. */
    Decision remembered(long id) {
        for (int at = 0; at < recent; at++) {
            if (recentIds[at] == id) {
                return recentDecisions[at];
            }
        }
        return null;
    }

    double amount_zscore(double amount) {
        return count == 0 ? 0 : (Math.log1p(amount) - usual) / Math.max(deviation, DEVIATION_FLOOR);
    }

    /** Takes in one transaction and what was decided on it. */
    void fold(Transaction transaction, long id, Decision decision) {
        double amount = transaction.amount();
        boolean high = count >= ENOUGH_TO_JUDGE && amount_zscore(amount) > HIGH;
        learn(amount);
        long timestamp = transaction.timestamp();
        firstSeen = count == 0 ? timestamp : Math.min(firstSeen, timestamp);
        lastSeen = Math.max(lastSeen, timestamp);
        count++;
        hours.count(timestamp / HOUR, lastSeen / HOUR - HOURS_KEPT, amount, high);
        days.count(timestamp / DAY, lastSeen / DAY - DAYS_KEPT, amount, high);
        int merchant = fingerprint(transaction.merchantId());
        merchants.see(merchant);
        if (transaction.country() != null) {
            countries.see(fingerprint(transaction.country()));
        }
        if (transaction.deviceId() != null) {
            devices.see(fingerprint(transaction.deviceId()));
        }
        if (transaction.hasPlace()) {
            latitude = transaction.latitude();
            longitude = transaction.longitude();
            placeTime = timestamp;
        }
        remember(id, timestamp, amount, merchant, decision);
    }

    private void learn(double amount) {
        double value = Math.log1p(amount);
        if (count == 0) {
            usual = value;
            return;
        }
        double pace = Math.max(1.0 / (count + 1), SLOWEST);
        double reach = REACH * Math.max(deviation, DEVIATION_FLOOR);
        double step = Math.min(Math.max(value - usual, -reach), reach);
        usual += pace * step;
        deviation += pace * (Math.abs(step) - deviation);
    }

    private void remember(long id, long timestamp, double amount, int merchant, Decision decision) {
        if (recent == RECENT_KEPT) {
            recent--;
            System.arraycopy(recentIds, 1, recentIds, 0, recent);
            System.arraycopy(recentTimes, 1, recentTimes, 0, recent);
            System.arraycopy(recentAmounts, 1, recentAmounts, 0, recent);
            System.arraycopy(recentMerchants, 1, recentMerchants, 0, recent);
            System.arraycopy(recentDecisions, 1, recentDecisions, 0, recent);
        }
        recentIds[recent] = id;
        recentTimes[recent] = timestamp;
        recentAmounts[recent] = amount;
        recentMerchants[recent] = merchant;
        recentDecisions[recent++] = decision;
    }

    /** Thirty-two bits that name a merchant, country or device; the same as in the service. */
    int fingerprint(String text) {
        crc.reset();
        crc.update(text.getBytes(StandardCharsets.UTF_8));
        return (int) crc.getValue();
    }

    /** Sixty-four bits that name a transaction within a card. */
    static long identity(String text) {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        return HASH.hash(bytes, 0, bytes.length, 0);
    }
}
