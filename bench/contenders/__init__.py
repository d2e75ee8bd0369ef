"""One contender, one file. Each has the same functions, one for each work (see work.py)."""
