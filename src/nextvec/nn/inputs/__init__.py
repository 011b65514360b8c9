"""Raw input to vectors: what stands in place of a trained table of tokens."""
