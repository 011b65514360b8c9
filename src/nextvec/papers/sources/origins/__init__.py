"""One module per source. Each has ``SOURCE``, a ``nextvec.papers.sources.base.Source``; the file name is its name."""
