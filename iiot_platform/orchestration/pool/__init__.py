"""Runs in processes that are already warm: a service that forks and feeds them, and its client."""
