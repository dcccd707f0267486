"""Where tables go: Parquet files always, InfluxDB where it is configured."""
