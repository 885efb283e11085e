"""Metrics of episodes and scores, statistics over runs and tasks, failure signatures."""
