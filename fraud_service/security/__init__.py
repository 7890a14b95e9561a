"""Card data, tokens, signatures and keys."""
