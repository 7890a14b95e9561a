package fraud.peer;

import ai.onnxruntime.OrtException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.stream.Stream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.processor.api.ProcessorSupplier;
import org.apache.kafka.streams.state.Stores;

/**
 * {@code BOOTSTRAP SOURCE SCORES GROUP FOLDER GUARANTEE [COMMIT_MS [SNAPSHOT]]} scores until it is ended. The property
 * {@code model} names the folder of the pretrained model.
 */
public final class Main {
    private static final long STEP_SECONDS = 30;
    private static final long CACHE_BYTES = 64 << 20;

    private Main() {}

    /** Starts it. */
    public static void main(String[] words) throws Exception {
        if (words.length < 6 || words.length > 8) {
            System.err.println(
                    "usage: BOOTSTRAP SOURCE SCORES GROUP FOLDER at-least-once|exactly-once [COMMIT_MS [SNAPSHOT]]");
            System.exit(2);
        }
        // Native libraries are unpacked there: what is ended by force leaves them behind, and the caller owns the folder.
        System.setProperty("java.io.tmpdir", Files.createDirectories(Path.of(words[4])).toString());
        String source = words[1];
        String scores = words[2];
        boolean isExact = words[5].equals("exactly-once");
        String commit = isExact ? "100" : "1000";
        if (words.length > 6) {
            commit = words[6];
        }
        createTopics(words[0], source, List.of(scores, scores + ".alerts", scores + ".dead-letters"));
        Path snapshot = words.length > 7 ? Path.of(words[7]) : null;
        Topology topology = topology(source, scores, Path.of(System.getProperty("model")), snapshot);
        try (KafkaStreams streams = new KafkaStreams(topology, options(words, isExact, commit))) {
            run(streams);
        }
    }

    private static void run(KafkaStreams streams) throws InterruptedException {
        CountDownLatch failed = new CountDownLatch(1);
        streams.setUncaughtExceptionHandler(error -> {
            failed.countDown(); // the stack trace is in the log already
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(STEP_SECONDS))));
        streams.start();
        failed.await();
        System.exit(1);
    }

    private static Topology topology(String source, String scores, Path model, Path snapshot) throws IOException {
        Manifest manifest = Manifest.read(model);
        Snapshot taught = snapshot == null ? null : Snapshot.read(snapshot, manifest);
        ProcessorSupplier<byte[], byte[], byte[], byte[]> scorer =
                () -> new Scorer(manifest, forest(model), taught);
        String step = "scorer";
        return new Topology()
                .addSource("transactions", source)
                .addProcessor(step, scorer, "transactions")
                // Binary profiles behind the record cache: what a card did between two commits is one write to RocksDB
                // and one record of the changelog.
                .addStateStore(
                        Stores.keyValueStoreBuilder(
                                        Stores.persistentKeyValueStore(Scorer.PROFILES),
                                        Serdes.ByteArray(),
                                        Serdes.ByteArray())
                                .withCachingEnabled()
                                .withLoggingEnabled(Map.of()),
                        step)
                .addSink(Scorer.SCORES, scores, step)
                .addSink(Scorer.ALERTS, scores + ".alerts", step)
                .addSink(Scorer.DEAD_LETTERS, scores + ".dead-letters", step);
    }

    private static Forest forest(Path model) {
        try {
            return new Forest(model);
        } catch (OrtException error) {
            throw new IllegalStateException("ONNX Runtime cannot load the model in " + model, error);
        }
    }

    private static Properties options(String[] words, boolean isExact, String commit) {
        Properties options = new Properties();
        options.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, words[0]);
        options.put(StreamsConfig.APPLICATION_ID_CONFIG, words[3]);
        options.put(StreamsConfig.STATE_DIR_CONFIG, words[4]);
        options.put(
                StreamsConfig.PROCESSING_GUARANTEE_CONFIG,
                isExact ? StreamsConfig.EXACTLY_ONCE_V2 : StreamsConfig.AT_LEAST_ONCE);
        options.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, commit);
        options.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        options.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
        options.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
        options.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, CACHE_BYTES);
        options.put(StreamsConfig.ROCKSDB_CONFIG_SETTER_CLASS_CONFIG, SmallRocksDb.class);
        options.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        options.put(StreamsConfig.consumerPrefix(ConsumerConfig.FETCH_MAX_WAIT_MS_CONFIG), 10);
        // Off as in librdkafka, which the service uses: TCP has checked the bytes already.
        options.put(StreamsConfig.consumerPrefix(ConsumerConfig.CHECK_CRCS_CONFIG), false);
        options.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
        options.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 20);
        options.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 512 << 10);
        return options;
    }

    /** Creates the output topics that are missing, with as many partitions as the source. */
    private static void createTopics(String bootstrap, String source, List<String> names)
            throws ExecutionException, InterruptedException, TimeoutException {
        try (Admin admin = Admin.create(Map.of(AdminClientConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap))) {
            Set<String> there = admin.listTopics().names().get(STEP_SECONDS, TimeUnit.SECONDS);
            int partitions = admin.describeTopics(List.of(source))
                    .allTopicNames()
                    .get(STEP_SECONDS, TimeUnit.SECONDS)
                    .get(source)
                    .partitions()
                    .size();
            Stream<NewTopic> missing = names.stream()
                    .filter(name -> !there.contains(name))
                    .map(name -> new NewTopic(name, Optional.of(partitions), Optional.empty()));
            admin.createTopics(missing.toList()).all().get(STEP_SECONDS, TimeUnit.SECONDS);
        }
    }
}
