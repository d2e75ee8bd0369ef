"""Tests that packages ship with their source, run on vinyl: see __main__.py."""
