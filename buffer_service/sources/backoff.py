"""How long to wait before the next attempt: capped, with full jitter."""

import random


class Backoff:
    """Waits that double up to a cap; each is drawn from (0, bound], so that clients spread out."""

    def __init__(self, *, first_s: float = 0.25, cap_s: float = 10.0) -> None:
        self._first_s = first_s
        self._cap_s = cap_s
        self.attempts = 0

    def next_s(self) -> float:
        """The next wait in seconds."""
        bound = min(self._cap_s, self._first_s * 2 ** min(self.attempts, 32))
        self.attempts += 1
        return random.uniform(0.05 * bound, bound)  # noqa: S311 - spreads load, guards nothing

    def reset(self) -> None:
        """Start over after a success."""
        self.attempts = 0
