"""Settings, read once at the start, and what is built from them."""
