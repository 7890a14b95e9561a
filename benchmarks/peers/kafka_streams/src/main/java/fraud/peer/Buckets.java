package fraud.peer;

import java.util.Arrays;

/** What happened in each hour or day of event time, column by column, the newest last. */
final class Buckets {
    final long[] numbers;
    final int[] counts;
    final double[] totals;
    final double[] largest;
    final int[] high;
    int size;

    /** Makes room for {@code kept} buckets. */
    Buckets(int kept) {
        numbers = new long[kept];
        counts = new int[kept];
        totals = new double[kept];
        largest = new double[kept];
        high = new int[kept];
    }

    /** Where the first bucket after {@code number} lies. */
    int after(long number) {
        int place = size; // what is asked for is mostly near the newest
        while (place > 0 && numbers[place - 1] > number) {
            place--;
        }
        return place;
    }

    /** Counts a payment in its bucket, unless its time is forgotten; drops the buckets up to {@code forgotten}. */
    void count(long number, long forgotten, double amount, boolean isHigh) {
        drop(after(forgotten));
        if (number <= forgotten) {
            return;
        }
        int place = after(number);
        if (place > 0 && numbers[place - 1] == number) {
            place--;
        } else {
            open(place, number);
        }
        counts[place]++;
        totals[place] += amount;
        largest[place] = Math.max(largest[place], amount);
        high[place] += isHigh ? 1 : 0;
    }

    private void drop(int old) {
        if (old > 0) {
            move(old, 0, size - old);
            size -= old;
        }
    }

    private void open(int place, long number) {
        move(place, place + 1, size - place);
        size++;
        numbers[place] = number;
        counts[place] = 0;
        totals[place] = 0;
        largest[place] = 0;
        high[place] = 0;
    }

    private void move(int from, int to, int length) {
        for (Object column : Arrays.asList(numbers, counts, totals, largest, high)) {
            System.arraycopy(column, from, column, to, length);
        }
    }
}
