from typing import Any

import pytest
from pydantic import ValidationError

from iiot_platform.config.alerts import DEFAULT_RULES, AlertSettings, RuleChanges, Webhook
from iiot_platform.config.errors import PlantError
from iiot_platform.config.plant import Plant


def settings(**values: Any) -> AlertSettings:
    return AlertSettings.model_validate(values)


def test_every_rule_can_be_changed() -> None:
    assert set(RuleChanges.model_fields) == set(DEFAULT_RULES)
    for name, rule in DEFAULT_RULES.items():
        assert settings().rule(name, "line1") == rule


def test_only_what_is_written_differs() -> None:
    made = settings(rules={"anomaly_ratio": {"for_s": 60}})
    expected = DEFAULT_RULES["anomaly_ratio"].model_copy(update={"for_s": 60})
    assert made.rule("anomaly_ratio", "line1", "m/n") == expected


def test_clear_keeps_its_share_of_the_threshold() -> None:
    made = settings(rules={"anomaly_ratio": {"threshold": 0.05}})
    assert made.rule("anomaly_ratio", "l").clear == 0.025
    made = settings(rules={"anomaly_ratio": {"threshold": 0.05, "clear": 0.04}})
    assert made.rule("anomaly_ratio", "l").clear == 0.04


def test_exceptions_name_lines_or_series_and_later_ones_win() -> None:
    made = settings(
        exceptions=[
            {"match": "press*", "silent_device": {"threshold": 100}},
            {"match": "press1/*/oil", "silent_device": {"threshold": 200, "severity": "critical"}},
            {"match": "press1/m", "silent_device": {"threshold": 300}},
            {"match": "*/m/v1", "silent_device": {"enabled": False}},
        ]
    )

    def found(line: str, series: str = "") -> tuple[bool, float, str]:
        rule = made.rule("silent_device", line, series)
        return rule.enabled, rule.threshold, rule.severity

    assert found("packer", "m/oil") == (True, 600, "warning")
    assert found("press2", "m/oil") == found("press2") == (True, 100, "warning")
    assert found("press1", "x/oil") == (True, 200, "critical")
    assert found("press1", "m/oil") == (True, 300, "critical")
    assert found("packer", "m/v1/ExtendTime")[0] is False
    assert found("packer", "m/v12")[0] is True


def test_all_can_be_switched_off() -> None:
    assert not settings(enabled=False).rule("line_lag", "l").enabled


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"rules": {"late_data": {"clear": 61}}}, "late_data: clear 61 should not be above"),
        ({"exceptions": [{"match": "l", "late_data": {"clear": 61}}]}, "l: late_data: clear 61"),
        ({"mqtt": {"prefix": "a/+"}}, "should not contain"),
        ({"mqtt": {"prefix": "a/"}}, "no '/' at the ends"),
        ({"webhook": {"url": "file:///etc/passwd"}}, "starts with http"),
        ({"webhook": {"url": "https://"}}, "starts with http"),
        ({"webhook": {"url": "http://h", "header": "A: b"}}, "pattern"),
    ],
)
def test_what_can_not_be_is_told(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        settings(**values)


def test_a_webhook_shows_no_secret() -> None:
    hook = Webhook.model_validate({"url": "http://h/secret", "token": "secret"})
    assert "secret" not in repr(hook)


@pytest.mark.parametrize(
    ("topic", "prefix", "fits"),
    [
        ("{line}/{machine}/{device}", "iiot", True),
        ("{line}/{machine}/{device}", "line1", False),
        ("iiot/{line}/{machine}/{device}", "iiot", True),
        ("iiot/{machine}/{device}", "iiot", False),
        ("{machine}/{device}", "iiot", False),
        ("iiot/alerts/{line}/{machine}/{device}", "iiot", False),
    ],
)
def test_alerts_never_fall_among_the_topics_of_a_line(
    topic: str, prefix: str, *, fits: bool
) -> None:
    lines = [{"name": "line1", "topic": topic}]
    written = {"lines": lines, "alerts": {"mqtt": {"prefix": prefix}}}
    if fits:
        assert Plant.model_validate(written).alert_topic_problem is None
    else:
        with pytest.raises(PlantError, match="would be captured as readings of line 'line1'"):
            Plant.model_validate(written)
    unwritten = Plant.model_validate({"lines": lines})
    assert (unwritten.alert_topic_problem is None) is (fits or prefix == "line1")


def test_alerts_change_no_settings_of_an_analysis() -> None:
    plain = Plant.model_validate({"lines": ["a"]})
    told = Plant.model_validate({"lines": ["a"], "alerts": {"delay_s": 1}})
    assert plain.line_settings("a").version == told.line_settings("a").version
