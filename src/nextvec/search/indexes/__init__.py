"""One index per file: derived from the collection, rebuilt when missing or stale."""
