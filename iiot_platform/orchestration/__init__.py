"""The tables as Dagster assets: sensors, schedules, checks."""
