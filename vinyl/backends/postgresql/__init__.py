"""Django's PostgreSQL backend on vinyl's own driver (libpq, in C)."""
