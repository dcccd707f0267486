"""The algorithms, one per file: arrays and a state in, arrays and a state out."""
