"""From the log to tables: decode, the partition function, checkpoints and the ledger."""
