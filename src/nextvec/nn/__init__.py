"""The parts of networks."""
