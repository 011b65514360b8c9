"""Search: the durable collection, its filters and its indexes. Nothing here imports torch."""
