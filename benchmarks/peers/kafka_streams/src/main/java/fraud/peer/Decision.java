package fraud.peer;

/** What was decided on one transaction, and by what; a component that failed has the logit NaN. */
record Decision(
        Outcome outcome,
        double score,
        double pretrainedLogit,
        double onlineLogit,
        double onlineWeight,
        String model,
        String snapshot,
        boolean isStale) {

    /** What the payment system is advised to do; the place in the list is what the profile stores. */
    enum Outcome {
        APPROVE("approve"),
        REVIEW("review"),
        DECLINE("decline");

        static final Outcome[] ALL = values();

        final String text;

        Outcome(String text) {
            this.text = text;
        }

        static Outcome of(double score) {
            if (score >= 0.9) {
                return DECLINE;
            }
            return score >= 0.3 ? REVIEW : APPROVE;
        }
    }

    boolean isFlagged() {
        return outcome != Outcome.APPROVE;
    }

    boolean hasFailed() {
        return Double.isNaN(pretrainedLogit) && Double.isNaN(onlineLogit);
    }
}
