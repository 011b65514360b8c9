"""Small worlds with a known truth, made by NumPy from a seed."""
