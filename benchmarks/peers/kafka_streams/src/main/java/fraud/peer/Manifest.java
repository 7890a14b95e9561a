package fraud.peer;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** What the artifact says of itself: {@code models/pretrained/manifest.json}. */
record Manifest(String version, double prior, double[] centre, double[] scale, int leaves) {

    static Manifest read(Path folder) throws IOException {
        JsonNode manifest = new ObjectMapper().readTree(Files.readAllBytes(folder.resolve("manifest.json")));
        JsonNode names = manifest.get("features");
        for (int at = 0; at < Features.COUNT; at++) {
            if (names.size() != Features.COUNT || !names.get(at).asText().equals(Features.NAMES.get(at))) {
                throw new IOException(folder + " was trained on other features");
            }
        }
        return new Manifest(
                manifest.get("version").asText(),
                manifest.get("prior").asDouble(),
                numbers(manifest.get("centre")),
                numbers(manifest.get("scale")),
                manifest.get("leaves").asInt());
    }

    static double[] numbers(JsonNode list) {
        double[] numbers = new double[list.size()];
        for (int at = 0; at < numbers.length; at++) {
            numbers[at] = list.get(at).asDouble();
        }
        return numbers;
    }
}
