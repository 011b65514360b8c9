"""What comes in: readers, and the catalogue of real data sets."""
