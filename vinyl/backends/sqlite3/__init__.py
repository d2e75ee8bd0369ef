"""The SQLite engine: ``ENGINE = "vinyl.backends.sqlite3"``."""
