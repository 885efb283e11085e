"""Somebody's own logs -> trajectories: a reader for each format, one rule for what their arrays and episodes mean."""
