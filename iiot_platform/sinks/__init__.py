"""Where tables go: Parquet files always, databases where they are configured."""
