"""Pooling: hidden states and mask to one vector."""
