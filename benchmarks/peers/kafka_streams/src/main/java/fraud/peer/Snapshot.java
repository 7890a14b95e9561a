package fraud.peer;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.DoubleBuffer;
import java.nio.file.Files;
import java.nio.file.Path;

/** What labels have taught: the weights of the online model and its share in the blend, from an event time on. */
record Snapshot(
        String version,
        long effectiveFrom,
        long intervalMs,
        double[] weights,
        double[] leafWeights,
        double pretrainedWeight,
        double intercept,
        double onlineWeight) {

    private static final String UNTRAINED = "untrained";
    private static final double LARGEST_INPUT = 5;

    /** The one before any label: its online score equals the pretrained one. */
    static Snapshot untrained(Manifest manifest) {
        return new Snapshot(
                UNTRAINED, 0, 0, new double[Features.COUNT], new double[manifest.leaves()], 1, 0, 0.5);
    }

    /** Reads a record of the service's snapshots topic from a file. */
    static Snapshot read(Path file, Manifest manifest) throws IOException {
        JsonNode record = new ObjectMapper().readTree(Files.readAllBytes(file));
        JsonNode online = record.get("online");
        Snapshot snapshot = new Snapshot(
                record.get("version").asText(),
                record.get("effective_from").asLong(),
                record.get("interval_ms").asLong(),
                Manifest.numbers(online.get("weights")),
                Manifest.numbers(online.get("leaf_weights")),
                online.get("pretrained_weight").asDouble(),
                online.get("intercept").asDouble(),
                record.get("online_weight").asDouble());
        boolean isSound = snapshot.weights.length == Features.COUNT && snapshot.leafWeights.length == manifest.leaves();
        if (!isSound || !record.get("model").asText().equals(manifest.version())) {
            throw new IOException(file + " was taught beside another model than " + manifest.version());
        }
        return snapshot;
    }

    boolean isStaleAt(long timestamp) {
        return !version.equals(UNTRAINED) && timestamp >= effectiveFrom + intervalMs;
    }

    /** The online model: linear in the pretrained logit, the standardised features, and the leaves reached. */
    double logit(double pretrainedLogit, double[] features, DoubleBuffer leaves, Manifest manifest) {
        double total = intercept + pretrainedWeight * pretrainedLogit;
        double[] centre = manifest.centre();
        double[] scale = manifest.scale();
        for (int at = 0; at < features.length; at++) {
            double input = (asinh(features[at]) - centre[at]) / scale[at];
            total += weights[at] * Math.min(Math.max(input, -LARGEST_INPUT), LARGEST_INPUT);
        }
        for (int tree = 0; tree < leaves.limit(); tree++) {
            total += leafWeights[(int) leaves.get(tree)];
        }
        return total;
    }

    /** Java has none; by log1p, so that nothing is lost near 0. */
    private static double asinh(double value) {
        if (value == 0) {
            return 0;
        }
        double size = Math.abs(value);
        double square = size * size;
        return Math.copySign(Math.log1p(size + square / (1 + Math.sqrt(1 + square))), value);
    }
}
