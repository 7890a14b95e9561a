package fraud.peer;

import ai.onnxruntime.OrtException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** The main flow for one transaction: read, features, scores, decision, remember, write. */
final class Scorer implements Processor<byte[], byte[], byte[], byte[]> {
    static final String PROFILES = "profiles";
    static final String SCORES = "scores";
    static final String ALERTS = "alerts";
    static final String DEAD_LETTERS = "dead-letters";

    private static final long FUTURE_TOLERANCE = 300_000;
    private static final double QUIET = -4.6;
    private static final Logger LOG = LoggerFactory.getLogger(Scorer.class);

    private final Manifest manifest;
    private final Forest forest;
    private final Snapshot untrained;
    private final Snapshot taught;
    private final TransactionReader reader = new TransactionReader();
    private final ProfileCodec codec = new ProfileCodec();
    private final Features features = new Features();
    private final RiskTable risk = new RiskTable();
    private final ScoreWriter writer = new ScoreWriter();
    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<byte[], byte[]> profiles;

    /** With a forest of its own, whose buffers no other task touches; {@code taught} may be null. */
    Scorer(Manifest manifest, Forest forest, Snapshot taught) {
        this.manifest = manifest;
        this.forest = forest;
        this.untrained = Snapshot.untrained(manifest);
        this.taught = taught;
    }

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
        this.context = context;
        profiles = context.getStateStore(PROFILES);
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
        try {
            Transaction transaction = reader.read(record.value());
            check(transaction, record);
            score(transaction, record);
        } catch (Unreadable error) {
            context.forward(
                    record.withHeaders(Headers.ofDeadLetter(error, context.recordMetadata().orElseThrow())),
                    DEAD_LETTERS);
        }
    }

    private static void check(Transaction transaction, Record<byte[], byte[]> record) throws Unreadable {
        if (record.key() == null) {
            throw new Unreadable("missing_key", "the message has no key; its key must be the card_id");
        }
        if (!Arrays.equals(record.key(), transaction.cardId().getBytes(StandardCharsets.UTF_8))) {
            throw new Unreadable("key_mismatch", "the key of the message is not its card_id");
        }
        if (transaction.timestamp() > record.timestamp() + FUTURE_TOLERANCE) {
            throw new Unreadable("future_timestamp", "`timestamp` lies after the broker's timestamp of the message");
        }
    }

    private void score(Transaction transaction, Record<byte[], byte[]> record) {
        Profile profile = codec.decode(profiles.get(record.key()));
        long id = Profile.identity(transaction.id());
        Decision known = profile.remembered(id);
        if (known != null) {
            context.forward(record.withValue(writer.score(transaction, known, null)), SCORES);
            return;
        }
        double[] row = features.extract(transaction, profile, risk);
        Decision decision = decide(row, transaction.timestamp());
        profile.fold(transaction, id, decision);
        profiles.put(record.key(), codec.encode(profile));
        context.forward(record.withValue(writer.score(transaction, decision, row)), SCORES);
        if (decision.isFlagged()) {
            byte[] alert = writer.alert(transaction, decision);
            context.forward(record.withValue(alert).withHeaders(Headers.ofAlert(transaction)), ALERTS);
        }
    }

    private Decision decide(double[] row, long timestamp) {
        Snapshot snapshot = taught != null && timestamp >= taught.effectiveFrom() ? taught : untrained;
        boolean isStale = snapshot.isStaleAt(timestamp);
        try {
            double pretrained = forest.logit(row);
            double online = snapshot.logit(pretrained, row, forest.leaves(), manifest);
            double share = snapshot.onlineWeight() * ScoreWriter.probability(Math.max(pretrained, online) - QUIET);
            double score = ScoreWriter.probability(pretrained + share * (online - pretrained));
            return new Decision(Decision.Outcome.of(score), score, pretrained, online, share, manifest.version(),
                    snapshot.version(), isStale);
        } catch (OrtException error) {
            LOG.error("a transaction could not be scored; a person decides", error);
            return new Decision(Decision.Outcome.REVIEW, ScoreWriter.probability(manifest.prior()), Double.NaN,
                    Double.NaN, 0, manifest.version(), snapshot.version(), isStale);
        }
    }

    @Override
    public void close() {
        try {
            forest.close();
        } catch (OrtException error) {
            LOG.warn("the model was not closed", error);
        }
    }
}
