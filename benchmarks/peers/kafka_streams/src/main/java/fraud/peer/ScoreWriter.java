package fraud.peer;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.StreamWriteFeature;
import com.fasterxml.jackson.core.io.SerializedString;
import com.fasterxml.jackson.core.util.ByteArrayBuilder;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.List;
import java.util.stream.IntStream;

/** Writes the records of the scores and alerts topics, in the fields and their order of docs/schemas. */
final class ScoreWriter {
    private static final double LARGEST_LOGIT = 30;
    private static final List<SerializedString> FEATURES =
            Features.NAMES.stream().map(SerializedString::new).toList();
    // Half of the features are small whole numbers: those are copied instead of formatted.
    private static final List<SerializedString> WHOLE =
            IntStream.range(0, 1000).mapToObj(value -> new SerializedString(value + ".0")).toList();
    private static final SerializedString TRANSACTION_ID = new SerializedString("transaction_id");
    private static final SerializedString TIMESTAMP = new SerializedString("timestamp");
    private static final SerializedString CARD_ID = new SerializedString("card_id");
    private static final SerializedString MERCHANT_ID = new SerializedString("merchant_id");
    private static final SerializedString AMOUNT = new SerializedString("amount");
    private static final SerializedString CURRENCY = new SerializedString("currency");
    private static final SerializedString OUTCOME = new SerializedString("outcome");
    private static final SerializedString SCORE = new SerializedString("score");
    private static final SerializedString PRETRAINED = new SerializedString("pretrained");
    private static final SerializedString ONLINE = new SerializedString("online");
    private static final SerializedString PRETRAINED_LOGIT = new SerializedString("pretrained_logit");
    private static final SerializedString ONLINE_LOGIT = new SerializedString("online_logit");
    private static final SerializedString ONLINE_WEIGHT = new SerializedString("online_weight");
    private static final SerializedString MODEL = new SerializedString("model");
    private static final SerializedString SNAPSHOT = new SerializedString("snapshot");
    private static final SerializedString IS_STALE = new SerializedString("is_stale");
    private static final SerializedString REPEATED = new SerializedString("is_duplicate");
    private static final SerializedString REASONS = new SerializedString("reasons");
    private static final SerializedString FEATURES_FIELD = new SerializedString("features");

    private final JsonFactory json =
            JsonFactory.builder().enable(StreamWriteFeature.USE_FAST_DOUBLE_WRITER).build();
    private final ByteArrayBuilder out = new ByteArrayBuilder(4096);

    /** Writes a score record; a repetition has no features. */
    byte[] score(Transaction transaction, Decision decision, double[] features) {
        out.reset();
        try (JsonGenerator to = json.createGenerator(out)) {
            to.writeStartObject();
            to.writeFieldName(TRANSACTION_ID);
            to.writeString(transaction.id());
            to.writeFieldName(TIMESTAMP);
            to.writeNumber(transaction.timestamp());
            to.writeFieldName(CARD_ID);
            to.writeString(transaction.cardId());
            to.writeFieldName(MERCHANT_ID);
            to.writeString(transaction.merchantId());
            to.writeFieldName(AMOUNT);
            to.writeNumber(transaction.amount());
            to.writeFieldName(CURRENCY);
            to.writeString(transaction.currency());
            decision(to, decision);
            to.writeFieldName(REPEATED);
            to.writeBoolean(features == null);
            reasons(to, decision);
            to.writeFieldName(FEATURES_FIELD);
            features(to, features);
            to.writeEndObject();
        } catch (IOException error) {
            throw new UncheckedIOException(error); // into memory: it does not happen
        }
        return out.toByteArray();
    }

    /** Writes an alert, without the contributions that the service would name. */
    byte[] alert(Transaction transaction, Decision decision) {
        out.reset();
        try (JsonGenerator to = json.createGenerator(out)) {
            to.writeStartObject();
            to.writeObjectFieldStart("transaction");
            transaction(to, transaction);
            to.writeEndObject();
            to.writeStringField("outcome", decision.outcome().text);
            to.writeNumberField("score", decision.score());
            probability(to, PRETRAINED, decision.pretrainedLogit());
            probability(to, ONLINE, decision.onlineLogit());
            to.writeStringField("model", decision.model());
            to.writeStringField("snapshot", decision.snapshot());
            reasons(to, decision);
            to.writeNullField("base");
            to.writeObjectFieldStart("contributions");
            to.writeEndObject();
            to.writeEndObject();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        return out.toByteArray();
    }

    private static void decision(JsonGenerator to, Decision decision) throws IOException {
        to.writeFieldName(OUTCOME);
        to.writeString(decision.outcome().text);
        to.writeFieldName(SCORE);
        to.writeNumber(decision.score());
        probability(to, PRETRAINED, decision.pretrainedLogit());
        probability(to, ONLINE, decision.onlineLogit());
        number(to, PRETRAINED_LOGIT, decision.pretrainedLogit());
        number(to, ONLINE_LOGIT, decision.onlineLogit());
        to.writeFieldName(ONLINE_WEIGHT);
        to.writeNumber(decision.onlineWeight());
        to.writeFieldName(MODEL);
        to.writeString(decision.model());
        to.writeFieldName(SNAPSHOT);
        to.writeString(decision.snapshot());
        to.writeFieldName(IS_STALE);
        to.writeBoolean(decision.isStale());
    }

    private static void reasons(JsonGenerator to, Decision decision) throws IOException {
        to.writeFieldName(REASONS);
        to.writeStartArray();
        if (decision.hasFailed()) {
            to.writeStartObject();
            to.writeStringField("code", "NO_MODEL");
            to.writeStringField("text", "No model could score this payment.");
            to.writeNumberField("contribution", 0.0);
            to.writeEndObject();
        }
        to.writeEndArray();
    }

    private static void features(JsonGenerator to, double[] features) throws IOException {
        if (features == null) {
            to.writeNull();
            return;
        }
        to.writeStartObject();
        for (int at = 0; at < features.length; at++) {
            to.writeFieldName(FEATURES.get(at));
            int whole = (int) features[at];
            if (whole == features[at] && whole >= 0 && whole < WHOLE.size()) {
                to.writeRawValue(WHOLE.get(whole));
            } else {
                to.writeNumber(features[at]);
            }
        }
        to.writeEndObject();
    }

    private static void transaction(JsonGenerator to, Transaction transaction) throws IOException {
        to.writeStringField("transaction_id", transaction.id());
        to.writeNumberField("timestamp", transaction.timestamp());
        to.writeStringField("card_id", transaction.cardId());
        to.writeStringField("merchant_id", transaction.merchantId());
        to.writeNumberField("amount", transaction.amount());
        to.writeStringField("currency", transaction.currency());
        text(to, "merchant_category_code", transaction.category());
        text(to, "country", transaction.country());
        text(to, "entry_mode", transaction.entryMode());
        text(to, "device_id", transaction.deviceId());
        text(to, "ip", transaction.ip());
        if (!Double.isNaN(transaction.latitude())) {
            to.writeNumberField("latitude", transaction.latitude());
        }
        if (!Double.isNaN(transaction.longitude())) {
            to.writeNumberField("longitude", transaction.longitude());
        }
    }

    private static void text(JsonGenerator to, String name, String value) throws IOException {
        if (value != null) {
            to.writeStringField(name, value);
        }
    }

    private static void probability(JsonGenerator to, SerializedString name, double logit) throws IOException {
        number(to, name, Double.isNaN(logit) ? logit : probability(logit));
    }

    private static void number(JsonGenerator to, SerializedString name, double value) throws IOException {
        to.writeFieldName(name);
        if (Double.isNaN(value)) {
            to.writeNull();
        } else {
            to.writeNumber(value);
        }
    }

    /** Turns a logit into a probability. */
    static double probability(double logit) {
        if (logit >= 0) {
            return 1 / (1 + Math.exp(-Math.min(logit, LARGEST_LOGIT)));
        }
        double odds = Math.exp(Math.max(logit, -LARGEST_LOGIT));
        return odds / (1 + odds);
    }
}
