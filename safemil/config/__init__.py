"""Settings with their ranges, overrides by dotted name, a user's errors, files written whole or not at all."""
