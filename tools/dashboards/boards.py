"""What every dashboard begins with: links, variables, rows."""

from collections.abc import Collection, Iterable
from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models

from iiot_platform.config.settings import Settings
from iiot_platform.core import schema
from iiot_platform.core.boards import DAGSTER_URL
from tools.dashboards.influxql import DATASOURCE, Source
from tools.dashboards.links import DAGSTER

_TAG: Final = "iiot"


def board(uid: str, title: str, description: str) -> builders.Dashboard:
    """An empty dashboard with the links to the others and the address of Dagster."""
    others = (
        builders.DashboardLink("Dashboards")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([_TAG])
        .as_dropdown(True)  # noqa: FBT003  # the SDK's signature
        .include_vars(True)  # noqa: FBT003  # likewise
        .keep_time(True)  # noqa: FBT003  # likewise
    )
    return (
        builders.Dashboard(title)
        .uid(f"{_TAG}-{uid}")
        .description(description)
        .tags([_TAG])
        .readonly()
        .timezone("")  # the user's, else that of the server's date_formats: the plant's
        .time("now-1h", "now")
        .refresh("5s")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(others)
        .with_variable(
            builders.TextBoxVariable(DAGSTER_URL)
            .label("Dagster")
            .description("Address of the Dagster UI, for the links to runs and assets.")
            .default_value(Settings.dagster_url)
            .hide(models.VariableHide.IN_CONTROLS_MENU)
        )
    )


def asset_link(found: schema.Table) -> builders.DashboardLink:
    """The page of a table's asset in Dagster, for a dashboard that shows one line at a time."""
    return (
        builders.DashboardLink(f"Asset: {found.title}")
        .type(models.DashboardLinkType.LINK)
        .icon("external link")
        .tooltip("The table in Dagster: its partitions, runs and checks")
        .url(f"{DAGSTER}/assets/${{line:percentencode}}/{found.name}")
        .target_blank(True)  # noqa: FBT003  # the SDK's signature
    )


def with_variables(
    made: builders.Dashboard,
    source: Source,
    *,
    many: Collection[str] = (),
    also: Iterable[schema.Table] = (),
    skip: Collection[str] = (),
) -> builders.Dashboard:
    """A dashboard whose variables choose the tags of a source, each under those before it.

    Args:
        made: the dashboard.
        source: whose tags are chosen.
        many: tags of which several may be chosen; all of them are at first.
        also: further tables that have values of the tags.
        skip: tags whose variables the dashboard has already.
    """
    for tag, variable in source.variables.items():
        if tag in skip:
            continue
        query = (
            builders.QueryVariable(variable)
            .label(variable.capitalize())
            .description(source.table.column(tag).description)
            .datasource(DATASOURCE)
            .query(source.tag_values(tag, also=also))
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.NATURAL_ASC)
        )
        if tag in many:
            query = (
                query.multi(True)  # noqa: FBT003  # the SDK's signature
                .include_all(True)  # noqa: FBT003  # likewise
                .all_value(".*")
                .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
            )
        made = made.with_variable(query)
    return made


_HAPPENED: Final = {
    "Settings": (schema.SETTINGS_CHANGED, "yellow"),
    "Computed again": ("rerun|backfill", "blue"),
    "Gaps": (schema.GAP, "orange"),
}
"""What is marked in charts, by its name: kinds of events, and a colour."""
EVENTS: Final = Source(schema.EVENTS, {schema.LINE.name: "line"})


def with_events(made: builders.Dashboard) -> builders.Dashboard:
    """A dashboard whose charts show where settings changed, hours were rerun, data is missing.

    Needs the variable `line`.
    """
    name = EVENTS.name
    for title, (kinds, color) in _HAPPENED.items():
        query = EVENTS.annotation(
            {
                "title": name(schema.LINE.name),
                "text": name("text"),
                "tags": name("hour"),
                "timeEnd": name("until_ms"),
            },
            where=[f"{name('kind')} =~ /^({kinds})$/"],
        )
        made = made.annotation(
            builders.AnnotationQuery()
            .name(title)
            .datasource(DATASOURCE)
            .enable(True)  # noqa: FBT003  # the SDK's signature
            .icon_color(color)
            .target(query)
        )
    return made


def row(title: str, repeat: str | None = None) -> builders.Row:
    """A row; with `repeat` one for each chosen value of a variable."""
    made = builders.Row(title)
    return made if repeat is None else made.repeat(repeat)
