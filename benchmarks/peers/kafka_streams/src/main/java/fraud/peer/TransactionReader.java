package fraud.peer;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadFeature;
import java.io.CharConversionException;
import java.io.IOException;
import java.time.DateTimeException;
import java.time.OffsetDateTime;

/** Reads and validates one JSON message, token by token: nothing is built that is not kept. */
final class TransactionReader {
    private static final int LARGEST_MESSAGE = 65_536;
    private static final double LARGEST_AMOUNT = 1e13;
    private static final long LATEST = 253_402_300_799_999L;
    private static final int IDENTIFIER = 128;
    private static final int TEXT = 256;

    private final JsonFactory json =
            JsonFactory.builder().enable(StreamReadFeature.USE_FAST_DOUBLE_PARSER).build();

    private String id;
    private String cardId;
    private String merchantId;
    private String currency;
    private String category;
    private String country;
    private String entryMode;
    private String deviceId;
    private String ip;
    private long timestamp;
    private double amount;
    private double latitude;
    private double longitude;

    Transaction read(byte[] message) throws Unreadable {
        if (message == null || message.length == 0) {
            throw new Unreadable("empty", "the message has no value");
        }
        if (message.length > LARGEST_MESSAGE) {
            throw new Unreadable("too_large", "the message has " + message.length + " bytes");
        }
        id = cardId = merchantId = currency = category = country = entryMode = deviceId = ip = null;
        timestamp = -1;
        amount = latitude = longitude = Double.NaN;
        try (JsonParser parser = json.createParser(message)) {
            if (parser.nextToken() != JsonToken.START_OBJECT) {
                throw new Unreadable("not_an_object", "the message is no JSON object");
            }
            for (String name = parser.nextFieldName(); name != null; name = parser.nextFieldName()) {
                parser.nextToken();
                field(name, parser);
            }
            if (parser.nextToken() != null) {
                throw new Unreadable("not_json", "something follows the object");
            }
        } catch (CharConversionException error) {
            throw new Unreadable("not_utf8", "the message is not valid UTF-8");
        } catch (IOException error) {
            boolean encoding = error.getMessage() != null && error.getMessage().startsWith("Invalid UTF-8");
            throw new Unreadable(encoding ? "not_utf8" : "not_json", "the message is not valid JSON");
        }
        return complete();
    }

    private void field(String name, JsonParser parser) throws IOException, Unreadable {
        switch (name) {
            case "transaction_id" -> id = identifier(name, parser);
            case "timestamp" -> timestamp = timestamp(parser);
            case "card_id" -> cardId = identifier(name, parser);
            case "merchant_id" -> merchantId = identifier(name, parser);
            case "amount" -> amount = amount(parser);
            case "currency" -> currency = currency(parser);
            case "merchant_category_code" -> category = text(name, parser);
            case "country" -> country = text(name, parser);
            case "entry_mode" -> entryMode = text(name, parser);
            case "device_id" -> deviceId = text(name, parser);
            case "ip" -> ip = text(name, parser);
            case "latitude" -> latitude = degrees(name, parser, 90);
            case "longitude" -> longitude = degrees(name, parser, 180);
            default -> parser.skipChildren(); // producers evolve first
        }
    }

    private Transaction complete() throws Unreadable {
        require(id, "transaction_id");
        require(cardId, "card_id");
        require(merchantId, "merchant_id");
        require(currency, "currency");
        if (timestamp < 0) {
            throw new Unreadable("missing_field", "`timestamp` is missing");
        }
        if (Double.isNaN(amount)) {
            throw new Unreadable("missing_field", "`amount` is missing");
        }
        return new Transaction(id, timestamp, cardId, merchantId, amount, currency, category, country, entryMode,
                deviceId, ip, latitude, longitude);
    }

    private static void require(String value, String name) throws Unreadable {
        if (value == null) {
            throw new Unreadable("missing_field", "`" + name + "` is missing");
        }
    }

    private static String string(String name, JsonParser parser, int longest) throws IOException, Unreadable {
        if (parser.currentToken() != JsonToken.VALUE_STRING) {
            throw new Unreadable("invalid_field", "`" + name + "` is no text");
        }
        String value = parser.getText();
        if (value.length() > longest && value.codePointCount(0, value.length()) > longest) {
            throw new Unreadable("invalid_field", "`" + name + "` is too long");
        }
        return value;
    }

    private static String identifier(String name, JsonParser parser) throws IOException, Unreadable {
        String value = string(name, parser, IDENTIFIER);
        if (value.isEmpty()) {
            throw new Unreadable("invalid_field", "`" + name + "` is empty");
        }
        return value;
    }

    private static String text(String name, JsonParser parser) throws IOException, Unreadable {
        return parser.currentToken() == JsonToken.VALUE_NULL ? null : string(name, parser, TEXT);
    }

    private static String currency(JsonParser parser) throws IOException, Unreadable {
        String value = string("currency", parser, 3);
        boolean valid = value.length() == 3;
        for (int at = 0; valid && at < 3; at++) {
            valid = value.charAt(at) >= 'A' && value.charAt(at) <= 'Z';
        }
        if (!valid) {
            throw new Unreadable("invalid_field", "`currency` is no ISO 4217 code");
        }
        return value;
    }

    private static double degrees(String name, JsonParser parser, double bound) throws IOException, Unreadable {
        if (parser.currentToken() == JsonToken.VALUE_NULL) {
            return Double.NaN;
        }
        double value = parser.currentToken().isNumeric() ? parser.getDoubleValue() : Double.NaN;
        if (!(Math.abs(value) <= bound)) {
            throw new Unreadable("invalid_field", "`" + name + "` are no degrees");
        }
        return value;
    }

    private static double amount(JsonParser parser) throws IOException, Unreadable {
        double value = Double.NaN;
        if (parser.currentToken().isNumeric()) {
            value = parser.getDoubleValue();
        } else if (parser.currentToken() == JsonToken.VALUE_STRING && isDecimal(parser.getText())) {
            value = Double.parseDouble(parser.getText());
        }
        if (!(value >= 0 && value <= LARGEST_AMOUNT)) {
            throw new Unreadable("invalid_amount", "`amount` is no number from 0 to 1e13");
        }
        return value + 0.0; // minus zero becomes zero
    }

    /** Digits, with a point and digits behind it or without. */
    private static boolean isDecimal(String text) {
        int point = text.indexOf('.');
        if (point == 0 || point == text.length() - 1 || text.isEmpty()) {
            return false;
        }
        for (int at = 0; at < text.length(); at++) {
            char character = text.charAt(at);
            if (at != point && (character < '0' || character > '9')) {
                return false;
            }
        }
        return true;
    }

    private static long timestamp(JsonParser parser) throws IOException, Unreadable {
        long value = -1;
        if (parser.currentToken() == JsonToken.VALUE_NUMBER_INT) {
            value = parser.getLongValue();
        } else if (parser.currentToken() == JsonToken.VALUE_STRING) {
            try {
                value = OffsetDateTime.parse(parser.getText()).toInstant().toEpochMilli();
            } catch (DateTimeException error) {
                throw new Unreadable("invalid_timestamp", "`timestamp` is not RFC 3339 with an offset");
            }
        }
        if (value < 0 || value > LATEST) {
            throw new Unreadable("invalid_timestamp", "`timestamp` is no instant of the years 1970 to 9999");
        }
        return value;
    }
}
