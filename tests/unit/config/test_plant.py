import pytest
from pydantic import SecretStr, ValidationError

from iiot_platform.config.errors import PlantError, UnknownLineError
from iiot_platform.config.line_settings import LineSettings
from iiot_platform.config.plant import Line, MqttSource, MqttTls, Plant
from iiot_platform.core.names import SeriesKey

TEMPERATURE = SeriesKey("signal", "press", "Temp1")


def plant(**fields: object) -> Plant:
    return Plant.model_validate({"lines": ["line1", "line2"], **fields})


def test_a_line_needs_its_name_and_nothing_else() -> None:
    settings = plant().line_settings("line1")

    assert settings.topic_filter == "line1/#"
    assert settings.detector(TEMPERATURE).threshold == 3.5
    assert plant().source_of("line1").name == "mqtt"
    assert [line.name for line in plant().lines_of("mqtt")] == ["line1", "line2"]


def test_the_version_does_not_depend_on_the_broker() -> None:
    tls = MqttTls(verify=False)
    elsewhere = MqttSource(name="other", host="broker", port=8883, password=SecretStr("x"), tls=tls)
    moved = plant(sources=(elsewhere,), buffer={"seal_rows": 7}, batches={"interval_s": 1})

    assert moved.line_settings("line1").version == plant().line_settings("line1").version


def test_a_threshold_of_one_line_leaves_the_version_of_the_other() -> None:
    stricter = plant(lines=[{"name": "line1", "defaults": {"signal": {"threshold": 3}}}, "line2"])

    assert stricter.line_settings("line1").version != plant().line_settings("line1").version
    assert stricter.line_settings("line2").version == plant().line_settings("line2").version


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"threshold": 4}, {"threshold": 4.0}),
        ({"threshold": "4"}, {"threshold": 4.0}),
        (
            {"acknowledged": ["2026-11-22T10:00:00+01:00"]},
            {"acknowledged": ["2026-11-22T09:00:00Z"]},
        ),
    ],
)
def test_one_analysis_has_one_version_however_it_is_spelt(
    one: dict[str, object], other: dict[str, object]
) -> None:
    versions = {
        plant(series=[{"match": "*/press/*", "detector": detector}]).line_settings("line1").version
        for detector in (one, other)
    }

    assert len(versions) == 1


def test_settings_that_were_stored_have_the_version_they_had() -> None:
    rules = [{"match": "*/press/*", "detector": {"acknowledged": ["2026-11-22T09:00:00Z"]}}]
    settings = plant(series=rules).line_settings("line1")

    stored = LineSettings.model_validate_json(settings.model_dump_json())
    assert stored.version == settings.version
    assert stored.detector(TEMPERATURE) == settings.detector(TEMPERATURE)


def test_a_default_that_is_written_out_changes_no_version() -> None:
    written = plant(defaults={"signal": {"threshold": 3.5}})

    assert written.line_settings("line1").version == plant().line_settings("line1").version


def test_defaults_of_the_line_come_over_those_of_the_plant_field_by_field() -> None:
    lines = [{"name": "line1", "defaults": {"signal": {"window": 50}}}, "line2"]
    given = plant(defaults={"signal": {"window": 100, "threshold": 5}}, lines=lines)

    detector = given.line_settings("line1").detector(TEMPERATURE)
    assert (detector.window, detector.threshold) == (50, 5.0)
    assert given.line_settings("line2").detector(TEMPERATURE).window == 100


def test_the_line_has_the_last_word_on_a_series() -> None:
    rules = [{"match": "line*/press/*", "detector": {"threshold": 6, "window": 60}}]
    own = [{"match": "press/Temp1", "detector": {"threshold": 7}}]
    given = plant(series=rules, lines=[{"name": "line1", "series": own}, "line2", "hall"])

    detector = given.line_settings("line1").detector(TEMPERATURE)
    assert (detector.threshold, detector.window) == (7.0, 60)
    assert given.line_settings("line2").detector(TEMPERATURE).threshold == 6.0
    assert given.line_settings("hall").series == ()


def test_a_rule_can_name_the_operation_of_a_valve() -> None:
    rules = [{"match": "*/m/V1/ExtendTime", "detector": {"threshold": 9}}]
    settings = plant(series=rules).line_settings("line1")

    assert settings.detector(SeriesKey("valve", "m", "V1", "ExtendTime")).threshold == 9.0
    assert settings.detector(SeriesKey("valve", "m", "V1", "RetractTime")).threshold == 3.5


def test_lateness_of_the_plant_holds_until_a_line_says_otherwise() -> None:
    given = plant(max_lateness_s=60, lines=["line1", {"name": "line2", "max_lateness_s": 5}])

    assert given.line_settings("line1").max_lateness_s == 60.0
    assert given.line_settings("line2").max_lateness_s == 5.0


def test_lines_of_two_sources_may_share_topics() -> None:
    sources = [{"name": "a"}, {"name": "b"}]
    shape = "hall/{machine}/{device}"
    lines = [{"name": "x", "topic": shape}, {"name": "y", "topic": shape, "source": "b"}]

    assert len(plant(sources=sources, lines=lines).lines_of("b")) == 1
    with pytest.raises(PlantError, match="would belong to line 'x' too"):
        plant(sources=sources, lines=[lines[0], {**lines[1], "source": "a"}])


def test_a_line_that_takes_everything_stands_alone() -> None:
    everything = {"name": "x", "topic": "{machine}/{device}"}

    assert plant(lines=[everything]).line_settings("x").topic_filter == "#"
    with pytest.raises(PlantError, match=r"lines\[0\]\.topic: topics below 'line1/'.*takes '#'"):
        plant(lines=["line1", everything])


def test_a_name_that_begins_like_another_shares_no_topics() -> None:
    assert plant(lines=["line1", "line11"]).line_names == ("line1", "line11")


@pytest.mark.parametrize(
    "topic", ["x{machine}/{device}", "{lin}/{machine}/{device}", "a/+/{machine}/{device}"]
)
def test_a_topic_that_can_not_be_subscribed_is_refused(topic: str) -> None:
    with pytest.raises(ValidationError, match="should h"):
        Line(name="line1", topic=topic)


def test_an_unknown_line_is_asked_back_with_the_nearest() -> None:
    with pytest.raises(UnknownLineError, match="no line 'lin1'; did you mean 'line1'"):
        plant().line_settings("lin1")


def test_a_plant_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        plant().name = "other"  # type: ignore[misc]  # the point of the test


def test_owners_are_people_or_teams() -> None:
    given = ["team:maintenance", "a.b@plant.example"]
    assert plant(lines=[{"name": "line1", "owners": given}]).line("line1").owners == tuple(given)
    for wrong in ("maintenance", "team:", "a@b", "team:a b"):
        with pytest.raises(ValidationError, match="e-mail address or a team"):
            plant(lines=[{"name": "line1", "owners": [wrong]}])


@pytest.mark.parametrize(
    ("batches", "bound_s"), [({}, 60), ({"interval_s": 30}, 360), ({"max_lag_s": 5}, 5)]
)
def test_the_bound_of_the_lag_grows_with_the_interval(
    batches: dict[str, float], bound_s: float
) -> None:
    assert plant(lines=["line1"], batches=batches).batches.lag_bound_s == bound_s
