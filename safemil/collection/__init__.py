"""Behavior policies -> dataset files in DSRL's format."""
