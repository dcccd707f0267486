"""Captures MQTT and OPC UA losslessly into an append-only log of Parquet segments."""
