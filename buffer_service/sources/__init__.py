"""Inputs, each behind the same small interface."""
