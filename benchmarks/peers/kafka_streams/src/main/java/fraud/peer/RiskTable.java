package fraud.peer;

import java.util.HashMap;
import java.util.Map;

/**
 * What labels say of merchants and cards, in memory. Nothing fills it: the streams of the benchmark carry no labels, so
 * every lookup misses, as in the service before its first snapshot, and the features take their cold values.
 */
final class RiskTable {
    private static final double[] UNKNOWN_MERCHANT = {0, 0, 0, 0, 0, 0, 0, 0, 0, Features.LONG_AGO, Features.LONG_AGO};
    private static final double[] UNKNOWN_CARD = {0, 0, Features.LONG_AGO};

    /** One row: how the features of a merchant or card look at an event time. */
    @FunctionalInterface
    interface Risk {
        double[] at(long now);
    }

    private final Map<String, Risk> merchants = new HashMap<>();
    private final Map<String, Risk> cards = new HashMap<>();

    void merchant(String merchant, long now, double[] row, int first) {
        copy(merchants.get(merchant), UNKNOWN_MERCHANT, now, row, first);
    }

    void card(String card, long now, double[] row, int first) {
        copy(cards.get(card), UNKNOWN_CARD, now, row, first);
    }

    private static void copy(Risk risk, double[] unknown, long now, double[] row, int first) {
        double[] values = risk == null ? unknown : risk.at(now);
        System.arraycopy(values, 0, row, first, values.length);
    }
}
