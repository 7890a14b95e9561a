import java.util.Map;
import org.apache.kafka.common.errors.PolicyViolationException;
import org.apache.kafka.server.policy.AlterConfigPolicy;
import org.apache.kafka.server.policy.CreateTopicPolicy;

/** Bounds the settings of topics, as hosted clusters do. */
public final class CloudPolicy implements CreateTopicPolicy, AlterConfigPolicy {
    private static final int MAX_BYTES = 8388608;

    @Override
    public void validate(CreateTopicPolicy.RequestMetadata request) {
        check(request.configs());
    }

    @Override
    public void validate(AlterConfigPolicy.RequestMetadata request) {
        check(request.configs());
    }

    private static void check(Map<String, String> configs) {
        String size = configs.get("max.message.bytes");
        if (size != null && Long.parseLong(size) > MAX_BYTES) {
            throw new PolicyViolationException(
                "Config property 'max.message.bytes' with value '" + size + "' exceeded max limit of " + MAX_BYTES);
        }
    }

    @Override
    public void configure(Map<String, ?> configs) {}

    @Override
    public void close() {}
}
