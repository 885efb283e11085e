"""Reads result folders and makes tables, figures and the report from them. Importing this does nothing."""
