package fraud.peer;

/** A message that cannot become a transaction, with the reason from the closed set of the dead-letter contract. */
final class Unreadable extends Exception {
    private static final long serialVersionUID = 1L;

    final String reason;

    Unreadable(String reason, String detail) {
        super(detail, null, false, false); // no stack trace: bad input is no fault of the program
        this.reason = reason;
    }
}
