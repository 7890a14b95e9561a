package fraud.peer;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.DoubleBuffer;
import java.nio.file.Path;
import java.util.Map;
import java.util.Set;

/**
 * The committed forest through ONNX Runtime, one row at a time, on one thread.
 *
 * <p>Input and outputs are tensors over direct buffers that live as long as the session: a run neither allocates nor
 * copies them.
 */
final class Forest implements AutoCloseable {
    private static final double SMALLEST_ODDS = 2e-4;
    private static final int TREES = 30; // lend their leaves to the online model
    private static final Set<String> NOTHING_ELSE = Set.of(); // every output is pinned

    private final OrtSession session;
    private final DoubleBuffer row = doubles(Features.COUNT);
    private final DoubleBuffer share = doubles(1);
    private final DoubleBuffer leaves = doubles(TREES);
    private final OnnxTensor rowTensor;
    private final OnnxTensor shareTensor;
    private final OnnxTensor leavesTensor;
    private final Map<String, OnnxTensor> inputs;
    private final Map<String, OnnxTensor> outputs;

    Forest(Path folder) throws OrtException {
        OrtEnvironment environment = OrtEnvironment.getEnvironment();
        try (OrtSession.SessionOptions options = new OrtSession.SessionOptions()) {
            options.setIntraOpNumThreads(1); // a row takes microseconds: threads would only fight over the core
            options.setInterOpNumThreads(1);
            session = environment.createSession(folder.resolve("model.onnx").toString(), options);
        }
        rowTensor = OnnxTensor.createTensor(environment, row, new long[] {1, Features.COUNT});
        shareTensor = OnnxTensor.createTensor(environment, share, new long[] {1, 1});
        leavesTensor = OnnxTensor.createTensor(environment, leaves, new long[] {1, TREES});
        inputs = Map.of("features", rowTensor);
        outputs = Map.of("share", shareTensor, "leaves", leavesTensor);
    }

    private static DoubleBuffer doubles(int count) {
        return ByteBuffer.allocateDirect(count * Double.BYTES).order(ByteOrder.nativeOrder()).asDoubleBuffer();
    }

    /** Scores one row; returns its logit. Features are compared in single precision, as in training. */
    double logit(double[] features) throws OrtException {
        for (int at = 0; at < Features.COUNT; at++) {
            row.put(at, (float) features[at]);
        }
        session.run(inputs, NOTHING_ELSE, outputs).close();
        double frauds = share.get(0);
        return Math.log((frauds + SMALLEST_ODDS) / (1 - frauds + SMALLEST_ODDS));
    }

    /** The leaves that the row scored last reaches, one a tree. */
    DoubleBuffer leaves() {
        return leaves;
    }

    @Override
    public void close() throws OrtException {
        rowTensor.close();
        shareTensor.close();
        leavesTensor.close();
        session.close();
    }
}
