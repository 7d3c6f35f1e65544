"""Landing, point-in-time features and the online store: only what was known at decision time."""
