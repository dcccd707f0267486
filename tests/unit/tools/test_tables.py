from iiot_platform.core import schema
from tools.tables import FILE, rendered


def test_the_committed_reference_is_that_of_its_source() -> None:
    assert FILE.read_text(encoding="utf-8") == rendered(), "run: python -m tools.tables"


def test_every_column_of_every_table_stands_in_it_once() -> None:
    sections = rendered().split("\n## ")[1:]
    assert [text.split("\n")[0] for text in sections] == list(schema.TABLES)
    for table, text in zip(schema.TABLES.values(), sections, strict=True):
        rows = [line for line in text.splitlines() if line.startswith("| `")]
        assert [row.split("`")[1] for row in rows] == [column.name for column in table.columns]
        assert all(row.replace("\\|", "").count("|") == 7 for row in rows)
