"""Policies in simulators: episodes that depend on (task, seed, index) alone, worker processes, videos."""
