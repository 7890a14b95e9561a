package fraud.peer;

import static fraud.peer.Profile.DAY;
import static fraud.peer.Profile.HOUR;

import java.util.List;

/** Version 2 of the feature contract (docs/features.md), computed from what was known before the transaction. */
final class Features {
    static final List<String> NAMES = List.of(
            "amount", "hour_of_day", "is_night", "is_weekend", "is_card_not_present", "card_age_days", "hours_since_last",
            "count_10m", "count_1h", "small_payments_1h", "distinct_merchants_1h", "count_1d", "count_7d", "count_30d", "total_1d",
            "mean_7d", "mean_30d", "velocity_ratio", "amount_to_mean", "amount_to_largest", "amount_zscore", "amount_outliers_3d",
            "amount_outliers_14d", "merchant_visits", "is_new_country", "is_new_device", "distance", "speed",
            "merchant_labelled_1d", "merchant_labelled_7d", "merchant_labelled_30d", "merchant_fraud_share_1d",
            "merchant_fraud_share_7d", "merchant_fraud_share_30d", "merchant_streak", "merchant_lowamount_frauds",
            "merchant_streak_age_hours", "merchant_hours_since_legitimate", "merchant_hours_since_lowamount_fraud", "card_frauds_7d",
            "card_frauds_30d", "card_hours_since_fraud");
    static final int COUNT = NAMES.size();
    static final double LONG_AGO = 720;

    private static final int FIRST_MERCHANT_RISK = NAMES.indexOf("merchant_labelled_1d");
    private static final int FIRST_CARD_RISK = NAMES.indexOf("card_frauds_7d");
    private static final double MOST = 30;
    private static final long MINUTE = 60_000;
    private static final double EARTH_RADIUS_KM = 6371.0088;

    private final double[] row = new double[COUNT];
    private final int[] company = new int[Profile.RECENT_KEPT];

    /** Computes them into an array that the next call fills again. */
    double[] extract(Transaction transaction, Profile profile, RiskTable risk) {
        itself(transaction);
        long now = transaction.timestamp();
        Month month = Month.of(profile.days, now / DAY);
        activity(now, profile, month);
        amounts(transaction.amount(), profile, month);
        company(transaction, profile);
        risk.merchant(transaction.merchantId(), now, row, FIRST_MERCHANT_RISK);
        risk.card(transaction.cardId(), now, row, FIRST_CARD_RISK);
        return row;
    }

    private void itself(Transaction transaction) {
        long hour = transaction.timestamp() / HOUR % 24;
        long weekday = (transaction.timestamp() / DAY + 3) % 7; // 1970-01-01 was a Thursday
        row[0] = transaction.amount();
        row[1] = hour;
        row[2] = hour < 6 ? 1 : 0;
        row[3] = weekday >= 5 ? 1 : 0;
        row[4] = "ecommerce".equals(transaction.entryMode()) || "keyed".equals(transaction.entryMode()) ? 1 : 0;
    }

    private void activity(long now, Profile profile, Month month) {
        if (profile.count == 0) {
            java.util.Arrays.fill(row, 5, 18, 0);
            row[6] = LONG_AGO;
            return;
        }
        double age = Math.min((double) Math.max(now - profile.firstSeen, 0) / DAY, MOST);
        row[5] = age;
        row[6] = hoursSince(now, profile.lastSeen);
        lastHour(profile, now);
        Buckets hours = profile.hours;
        long today = 0;
        double total = 0;
        for (int at = hours.after(now / HOUR - 24), end = hours.after(now / HOUR); at < end; at++) {
            today += hours.counts[at];
            total += hours.totals[at];
        }
        row[11] = today;
        row[12] = month.week;
        row[13] = month.count;
        row[14] = total;
        row[15] = month.week > 0 ? month.weekTotal / month.week : 0;
        row[16] = month.count > 0 ? month.total / month.count : 0;
        row[17] = month.count > 0 ? today * Math.min(age + 1, 30) / month.count : 0;
    }

    private void lastHour(Profile profile, long now) {
        int tenMinutes = 0;
        int hour = 0;
        int small = 0;
        int merchants = 0;
        for (int at = 0; at < profile.recent; at++) {
            long age = now - profile.recentTimes[at];
            if (age < 0 || age >= HOUR) {
                continue;
            }
            hour++;
            tenMinutes += age < 10 * MINUTE ? 1 : 0;
            small += profile.recentAmounts[at] <= 2 ? 1 : 0;
            merchants = noted(profile.recentMerchants[at], merchants);
        }
        row[7] = tenMinutes;
        row[8] = hour;
        row[9] = small;
        row[10] = merchants;
    }

    /** Notes a merchant among the distinct ones so far; returns how many there are now. */
    private int noted(int merchant, int known) {
        for (int at = 0; at < known; at++) {
            if (company[at] == merchant) {
                return known;
            }
        }
        company[known] = merchant;
        return known + 1;
    }

    private void amounts(double amount, Profile profile, Month month) {
        row[18] = ratio(amount * month.count, month.total);
        row[19] = ratio(amount, month.largest);
        row[20] = Math.min(Math.max(profile.amount_zscore(amount), -20), 20);
        row[21] = month.high3;
        row[22] = month.high14;
    }

    private void company(Transaction transaction, Profile profile) {
        row[23] = Math.min(profile.merchants.count(profile.fingerprint(transaction.merchantId())), MOST);
        row[24] = isNew(transaction.country(), profile.countries, profile);
        row[25] = isNew(transaction.deviceId(), profile.devices, profile);
        row[26] = row[27] = 0;
        if (profile.hasPlace() && transaction.hasPlace()) {
            double distance = greatCircle(
                    profile.latitude, profile.longitude, transaction.latitude(), transaction.longitude());
            double hours = (double) Math.abs(transaction.timestamp() - profile.placeTime) / HOUR;
            row[26] = distance;
            row[27] = Math.min(distance / Math.max(hours, 1.0 / 60), 20_000);
        }
    }

    private static double isNew(String text, Recency known, Profile profile) {
        return text != null && known.size > 0 && !known.holds(profile.fingerprint(text)) ? 1 : 0;
    }

    private static double greatCircle(double latitude1, double longitude1, double latitude2, double longitude2) {
        double phi1 = Math.toRadians(latitude1);
        double phi2 = Math.toRadians(latitude2);
        double sinPhi = Math.sin((phi2 - phi1) / 2);
        double sinLambda = Math.sin(Math.toRadians(longitude2 - longitude1) / 2);
        double chord = sinPhi * sinPhi + Math.cos(phi1) * Math.cos(phi2) * sinLambda * sinLambda;
        return 2 * EARTH_RADIUS_KM * Math.asin(Math.sqrt(Math.min(chord, 1)));
    }

    private static double ratio(double amount, double of) {
        return of > 0 ? Math.min(amount / of, 1000) : 1;
    }

    static double hoursSince(long now, long then) {
        return Math.min((double) Math.max(now - then, 0) / HOUR, LONG_AGO);
    }

    /** What the daily buckets say of the thirty days up to a day. */
    private record Month(
            long week, double weekTotal, long count, double total, double largest, long high3, long high14) {

        static Month of(Buckets days, long newest) {
            long week = 0;
            long count = 0;
            long high3 = 0;
            long high14 = 0;
            double weekTotal = 0;
            double total = 0;
            double largest = 0;
            for (int at = days.after(newest - 30), end = days.after(newest); at < end; at++) {
                long age = newest - days.numbers[at];
                count += days.counts[at];
                total += days.totals[at];
                largest = Math.max(largest, days.largest[at]);
                if (age < 7) {
                    week += days.counts[at];
                    weekTotal += days.totals[at];
                }
                high3 += age < 3 ? days.high[at] : 0;
                high14 += age < 14 ? days.high[at] : 0;
            }
            return new Month(week, weekTotal, count, total, largest, high3, high14);
        }
    }
}
