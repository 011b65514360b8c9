"""Embeddings made small."""
