package fraud.peer;

/** The fingerprints most recently seen, each with a count, the newest last; the oldest gives way. */
final class Recency {
    final int[] prints;
    final int[] counts;
    int size;

    Recency(int kept) {
        prints = new int[kept];
        counts = new int[kept];
    }

    /** How often it was seen since it was last forgotten. */
    int count(int print) {
        int place = find(print);
        return place < 0 ? 0 : counts[place];
    }

    boolean holds(int print) {
        return find(print) >= 0;
    }

    /** Counts it and makes it the newest. */
    void see(int print) {
        int place = find(print);
        int count = place < 0 ? 0 : counts[place];
        if (place < 0 && size < prints.length) {
            place = size++;
        } else if (place < 0) {
            place = 0; // the oldest gives way
        }
        System.arraycopy(prints, place + 1, prints, place, size - 1 - place);
        System.arraycopy(counts, place + 1, counts, place, size - 1 - place);
        prints[size - 1] = print;
        counts[size - 1] = count + 1;
    }

    private int find(int print) {
        for (int place = size - 1; place >= 0; place--) {
            if (prints[place] == print) {
                return place;
            }
        }
        return -1;
    }
}
