"""Recipes: which behavior policies the data of a task come from."""
