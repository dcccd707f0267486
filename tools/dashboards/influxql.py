"""InfluxQL for dashboards, written from declared tables so that no name can be misspelt.

The same text runs on InfluxDB 1.8+, 2.x and 3: no database or retention policy in FROM, and a time
condition in every SHOW TAG VALUES.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from grafana_foundation_sdk.cog import builder as cogbuilder
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.models.common import DataSourceRef

from iiot_platform.core import schema

DATASOURCE_UID: Final = "iiot-influxdb"
DATASOURCE: Final = DataSourceRef(type_val="influxdb", uid=DATASOURCE_UID)


class InfluxQuery(variants.Dataquery, cogbuilder.Builder["InfluxQuery"]):
    """A raw InfluxQL query as Grafana stores it; the SDK has no such type of its own.

    Args:
        query: the text, with Grafana's macros and variables.
        ref_id: name of the query within its panel.
        result_format: one series a column, or one table.
        alias: name of each series; `$tag_<name>` stands for a tag's value.
        annotation: the columns that an annotation is made of, by the words `title`, `text`,
            `tags` and `timeEnd`; see `Source.annotation`.
    """

    def __init__(
        self,
        query: str,
        *,
        ref_id: str = "A",
        result_format: Literal["time_series", "table"] = "time_series",
        alias: str = "$col",
        annotation: Mapping[str, str] | None = None,
    ) -> None:
        self._json: dict[str, object] = {
            "refId": ref_id,
            "datasource": DATASOURCE,
            "query": query,
            "rawQuery": True,
            "resultFormat": result_format,
        }
        if result_format == "time_series":
            self._json["alias"] = alias
        if annotation is not None:
            named = {f"{word}Column": column for word, column in annotation.items()}
            self._json |= {"fromAnnotations": True, **named}

    def build(self) -> "InfluxQuery":
        """Itself: nothing is left to build."""
        return self

    def to_json(self) -> dict[str, object]:
        """The target's JSON."""
        return self._json


@dataclass(frozen=True)
class Source:
    """A table as a dashboard sees it.

    Attributes:
        table: its declaration.
        variables: the tags that dashboard variables choose, with the variables' names.
    """

    table: schema.Table
    variables: Mapping[str, str] = field(default_factory=dict)

    def name(self, column: str) -> str:
        """A column's name, quoted.

        Raises:
            KeyError: the table has no such column.
            ValueError: the column does not stand in InfluxDB.
        """
        role = self.table.column(column).role
        if role not in {"tag", "field", "provenance"}:
            raise ValueError(f"'{column}' of table '{self.table.name}' is {role}, not in InfluxDB")
        return f'"{column}"'

    @property
    def stands(self) -> str:
        """The condition for rows that are not marked as deleted."""
        return f"{self.name(self.table.mark)} != '{schema.DELETED}'"

    def select(
        self,
        expressions: Mapping[str, str],
        *,
        where: Iterable[str] = (),
        every: str | None = "$__interval",
        by: Iterable[str] = (),
        without: Iterable[str] = (),
        newest: int | None = None,
        gaps: bool = True,
    ) -> str:
        """A query for the dashboard's time range and the chosen tags.

        Args:
            expressions: what is selected, by the name that it is shown under.
            where: further conditions.
            every: interval that is aggregated over; None for rows as they are.
            by: tags that are told apart.
            without: tags whose variable does not restrict this query.
            newest: only the newest rows, at most this many, the newest first.
            gaps: whether an interval without points has an empty row, which breaks a line.
        """
        columns = ", ".join(f'{text} AS "{shown}"' for shown, text in expressions.items())
        conditions = " AND ".join([*self._chosen(without), *where, "$timeFilter", self.stands])
        groups = [*([f"time({every})"] if every else []), *(self.name(tag) for tag in by)]
        text = f'SELECT {columns} FROM "{self.table.measurement}" WHERE {conditions}'
        if groups:
            text += f" GROUP BY {', '.join(groups)}"
        if every:
            text += f" fill({'null' if gaps else 'none'})"
        return text if newest is None else f"{text} ORDER BY time DESC LIMIT {newest}"

    def annotation(
        self, expressions: Mapping[str, str], *, where: Iterable[str] = ()
    ) -> InfluxQuery:
        """A query whose rows Grafana marks in charts; a row that lacks a value is not marked.

        Args:
            expressions: what a mark is made of, by its words: `title`, `text`, `tags` and, in
                Unix ms, `timeEnd`.
            where: further conditions.
        """
        # Grafana knows the columns of this answer by the measurement's name and theirs
        named = {word: f"{self.table.measurement}.{word}" for word in expressions}
        query = self.select(expressions, where=where, every=None)
        return InfluxQuery(query, ref_id="Anno", annotation=named)

    def tag_values(self, tag: str, *, also: Iterable[schema.Table] = ()) -> str:
        """The values of a tag in the time range, under the variables that stand before it.

        Args:
            tag: the tag.
            also: further tables whose values count.
        """
        before = list(self.variables)[: list(self.variables).index(tag)]
        conditions = " AND ".join([*(self._is_chosen(name) for name in before), "$timeFilter"])
        tables = ", ".join(f'"{table.measurement}"' for table in (self.table, *also))
        return f"SHOW TAG VALUES FROM {tables} WITH KEY = {self.name(tag)} WHERE {conditions}"

    def _chosen(self, without: Iterable[str]) -> list[str]:
        left_out = set(without)
        return [self._is_chosen(tag) for tag in self.variables if tag not in left_out]

    def _is_chosen(self, tag: str) -> str:
        # `:regex`, because Grafana by itself leaves a name unescaped that begins with a digit
        return f"{self.name(tag)} =~ /^${{{self.variables[tag]}:regex}}$/"
