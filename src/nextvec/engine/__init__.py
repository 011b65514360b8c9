"""Training: one process or many, exact large batches in small memory, exact resume."""
