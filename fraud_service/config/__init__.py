"""Settings, read once at the start, and the objects that depend on them."""
