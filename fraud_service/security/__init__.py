"""Card data, tokens, signatures, keys and the rate limit of labels."""
