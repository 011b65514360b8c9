"""Backbones: vectors (or token ids) to hidden states."""
