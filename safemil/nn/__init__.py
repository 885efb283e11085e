"""Stacked networks of R replicas: layers, policies, random streams, checkpoints."""
