"""The whole platform in one terminal: broker, buffer, simulator and Dagster, supervised."""
