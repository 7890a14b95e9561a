package fraud.peer;

/** One card payment; {@code timestamp} in epoch milliseconds. Optional texts are null, optional places NaN. */
record Transaction(
        String id,
        long timestamp,
        String cardId,
        String merchantId,
        double amount,
        String currency,
        String category,
        String country,
        String entryMode,
        String deviceId,
        String ip,
        double latitude,
        double longitude) {

    boolean hasPlace() {
        return !Double.isNaN(latitude) && !Double.isNaN(longitude);
    }
}
