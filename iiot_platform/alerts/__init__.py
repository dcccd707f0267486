"""Alerts: rules over the tables, evaluated live, replayed over history, told and provisioned."""
