from buffer_service.sources.backoff import Backoff


def test_waits_are_drawn_anew_below_a_bound_that_doubles_up_to_the_cap() -> None:
    waits: list[list[float]] = []
    for _ in range(200):
        backoff = Backoff(first_s=0.25, cap_s=3.0)
        waits.append([backoff.next_s() for _ in range(7)])
    for drawn, bound in zip(zip(*waits, strict=True), (0.25, 0.5, 1.0, 2.0, 3, 3, 3), strict=True):
        assert all(0 < wait <= bound for wait in drawn)
        assert len(set(drawn)) > 100
        # over the whole width: clients that were thrown out together do not come back together
        assert min(drawn) < bound / 4 < 3 * bound / 4 < max(drawn)


def test_it_starts_over_after_a_success_and_never_ends() -> None:
    backoff = Backoff(first_s=0.25, cap_s=3.0)
    for _ in range(2_000):
        assert backoff.next_s() <= 3.0
    backoff.reset()
    assert backoff.next_s() <= 0.25
