import pytest

from tests.reference.grafana_queries import interpolated


def filled_in(text: str, **variables: str | list[str]) -> str:
    return interpolated(text, variables, start_ms=1, end_ms=2, interval="10s")


@pytest.mark.parametrize(
    ("value", "regex"),
    [
        ("Süd 'a' \"b\"", "Süd 'a' \"b\""),
        ("1.5/2 (old)", r"1\.5\/2 \(old\)"),
        ("12|13", r"12\|13"),
        ("$line", r"\$line"),
        (r"^*+?[]{}\ ", r"\^\*\+\?\[\]\{\}\\ "),
        (["3+"], r"3\+"),
        (["3+", "b.c"], r"(3\+|b\.c)"),
    ],
)
def test_names_are_escaped_as_grafana_does(value: str | list[str], regex: str) -> None:
    assert filled_in('"n" =~ /^${line:regex}$/', line=value) == f'"n" =~ /^{regex}$/'


@pytest.mark.parametrize("text", ["/^$line$/", "/^${line}$/", "/^${line:raw}$/", "$interval"])
def test_what_grafana_would_fill_in_otherwise_is_refused(text: str) -> None:
    with pytest.raises(AssertionError, match="not filled in"):
        filled_in(text, line="a")


def test_macros_become_the_time_range_and_the_interval() -> None:
    text = filled_in("$timeFilter GROUP BY time($__interval)")
    assert text == "time >= 1ms and time <= 2ms GROUP BY time(10s)"
