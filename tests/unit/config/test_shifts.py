from pathlib import Path

import pytest
from pydantic import TypeAdapter

from iiot_platform.config.errors import PlantFileError
from iiot_platform.config.plant import Plant
from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.shifts import DEFAULT_SHIFTS, Shift, ShiftCalendar
from iiot_platform.core.clock import to_ms
from iiot_platform.core.parameters import Moment


def at(text: str) -> int:
    return to_ms(TypeAdapter(Moment).validate_python(text))


def test_without_shifts_there_are_three() -> None:
    plant = Plant.model_validate({"lines": ["line1"]})
    assert [(shift.name, shift.start) for shift in plant.shifts] == [
        ("early", "06:00"),
        ("late", "14:00"),
        ("night", "22:00"),
    ]


def test_shifts_come_in_order_of_their_start(tmp_path: Path) -> None:
    path = tmp_path / "plant.yaml"
    path.write_text(
        "lines: [line1]\nshifts:\n- {name: b, start: '18:30'}\n- {name: a, start: '6:30'}\n",
        encoding="utf-8",
    )
    assert load_plant(path, {}).shifts == (
        Shift(name="a", start="06:30"),
        Shift(name="b", start="18:30"),
    )


@pytest.mark.parametrize(
    ("shifts", "message"),
    [
        ("[]", "at least one entry"),
        ("[{name: a, start: '24:00'}]", "time of day"),
        ("[{name: a, start: '06:00'}, {name: b, start: '06:00'}]", "'06:00' stands twice"),
        ("[{name: a, start: '06:00'}, {name: a, start: '07:00'}]", "'a' stands twice"),
        ("[{name: a, begin: '06:00'}]", "no such field"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, shifts: str, message: str) -> None:
    path = tmp_path / "plant.yaml"
    path.write_text(f"lines: [line1]\nshifts: {shifts}\n", encoding="utf-8")
    with pytest.raises(PlantFileError, match=message):
        load_plant(path, {})


def test_settings_versions_do_not_depend_on_shifts() -> None:
    plain = Plant.model_validate({"lines": ["line1"]})
    other = Plant.model_validate({"lines": ["line1"], "shifts": [{"name": "x", "start": "01:00"}]})
    assert plain.line_settings("line1").version == other.line_settings("line1").version


@pytest.mark.parametrize(
    ("moment", "day", "name"),
    [
        ("2026-03-29T00:30:00Z", "2026-03-28", "night"),
        # 03:00 in Berlin comes right behind 01:59: the night is an hour shorter
        ("2026-03-29T03:59:00Z", "2026-03-28", "night"),
        ("2026-03-29T04:00:00Z", "2026-03-29", "early"),
        # and an hour longer in October
        ("2026-10-25T04:59:00Z", "2026-10-24", "night"),
        ("2026-10-25T05:00:00Z", "2026-10-25", "early"),
        ("2026-10-25T21:00:00Z", "2026-10-25", "night"),
    ],
)
def test_starts_are_read_from_the_clock_on_the_wall(moment: str, day: str, name: str) -> None:
    shift = ShiftCalendar(DEFAULT_SHIFTS, "Europe/Berlin").shift_at(at(moment))
    assert (str(shift.day), shift.name) == (day, name)
