"""Django's own test suite, unmodified, on vinyl's engines; see ``__main__``."""
