"""One self-contained page of a plant from its tables: for a look without Grafana."""
