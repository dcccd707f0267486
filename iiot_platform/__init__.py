"""Analytics of production lines as pure functions of a capture log and settings."""
