"""The app whose tables are read and written over HTTP."""
