"""The capture log: hot rows, sealed segments, the manifest."""
