"""What the assets are, in words and columns, from the one declaration of the tables."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dagster import (
    AssetCheckSpec,
    AssetSpec,
    TableColumn,
    TableColumnConstraints,
    TableSchema,
)
from dagster._core.definitions.metadata import TableMetadataSet

from iiot_platform.config.settings import SINK_TITLES
from iiot_platform.core.schema import Column, Table
from iiot_platform.orchestration.links import NO_LINKS, Links
from iiot_platform.orchestration.naming import ASSET_TABLES, LINE_TAG, LineNames


@dataclass(frozen=True)
class About:
    """What people are told of a line's assets.

    Attributes:
        owners: whom to ask.
        links: where the rows are found.
    """

    owners: Sequence[str] = ()
    links: Links = NO_LINKS


def raw_spec(names: LineNames, about: About, *, kind: str) -> AssetSpec:
    """The capture log of a line, which the buffer writes and Dagster only observes."""
    return AssetSpec(
        names.raw,
        description="Every message of the line as it came, in the order of its offsets.",
        group_name=names.safe,
        owners=about.owners,
        kinds={kind, "parquet"},
        metadata={"line": names.line},
        tags={LINE_TAG: names.safe},
    )


def table_specs(names: LineNames, about: About) -> list[AssetSpec]:
    """The tables of a line."""
    return [
        AssetSpec(
            names.table(table.name),
            deps=[names.raw],
            # a run that materializes some of them is a whole run
            skippable=True,
            description=description(table),
            group_name=names.safe,
            owners=about.owners,
            kinds={"duckdb", "parquet"},
            metadata={
                **TableMetadataSet(column_schema=column_schema(table)),
                "line": names.line,
                "title": table.title,
                **({"measurement": table.measurement} if table.measurement else {}),
                **about.links.table(names, table.name),
            },
            tags={LINE_TAG: names.safe},
        )
        for table in ASSET_TABLES.values()
    ]


def sink_spec(names: LineNames, about: About, sink: str) -> AssetSpec:
    """The line's rows in a database: a view of its tables that can be rebuilt."""
    measured = [table for table in ASSET_TABLES.values() if table.measurement is not None]
    listed = "\n".join(
        f"- `{table.name}` (measurement `{table.measurement}`): {table.title}" for table in measured
    )
    return AssetSpec(
        names.sink(sink),
        deps=[names.table(table.name) for table in measured],
        description=f"The line's rows in {SINK_TITLES[sink]}.\n\n{listed}",
        group_name=names.safe,
        owners=about.owners,
        kinds={sink},
        metadata={"line": names.line},
        tags={LINE_TAG: names.safe},
    )


def table_checks(names: LineNames) -> list[AssetCheckSpec]:
    """What is checked of every hour."""
    return [
        AssetCheckSpec(
            names.completeness.name,
            asset=names.completeness.asset_key,
            description="The log has every offset that the hour was computed from.",
        ),
        AssetCheckSpec(
            names.lag_within_bound.name,
            asset=names.lag_within_bound.asset_key,
            description=(
                "No sealed message of the line waits longer than `batches.max_lag_s` to be"
                " computed. Told by every run, and by the sensor while no run gets through."
            ),
        ),
        AssetCheckSpec(
            names.live_equals_rerun.name,
            asset=names.live_equals_rerun.asset_key,
            description=(
                "Every table of a closed hour, computed whole from the log, has the rows and"
                " states that stood already, bit for bit. Late rows, disorder and new settings or"
                " code are reasons to differ, and a warning; without a reason it is a defect."
            ),
        ),
    ]


def sink_checks(names: LineNames, sink: str) -> list[AssetCheckSpec]:
    """What is checked of a database."""
    return [
        AssetCheckSpec(
            names.delivery(sink).name,
            asset=names.sink(sink),
            description="The database takes what it is given, without refusals or failures.",
        )
    ]


def description(table: Table) -> str:
    """A table's purpose and its columns with their units, in Markdown."""
    rows = "\n".join(
        f"| `{column.name}` | {column.unit} | {column.description} |" for column in table.columns
    )
    return f"{table.description}\n\n| column | unit | meaning |\n|---|---|---|\n{rows}"


def column_schema(table: Table) -> TableSchema:
    """The columns as Dagster shows them."""
    return TableSchema(columns=[_column(column) for column in table.columns])


def _column(column: Column) -> TableColumn:
    return TableColumn(
        column.name,
        type=str(column.type),
        description=f"{column.description} [{column.unit}]" if column.unit else column.description,
        constraints=TableColumnConstraints(nullable=column.nullable),
        tags={"role": column.role},
    )


def tested(tables: Iterable[Table]) -> frozenset[str]:
    """The names of the tables whose rows carry a verdict."""
    return frozenset(
        table.name
        for table in tables
        if any(column.name.endswith("anomaly") for column in table.columns)
    )


Metadata = dict[str, Any]
