"""Request handlers: Django's own, with fibers instead of threads."""
