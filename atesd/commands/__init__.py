"""Who types: one file a verb of ``atesd``."""
