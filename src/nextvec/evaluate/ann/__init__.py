"""Filtered nearest-neighbour search, measured: workloads, engines, a runner and its tables (docs/ann.md)."""
