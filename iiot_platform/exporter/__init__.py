"""Tells monitoring how the platform does: metrics, health and readiness over HTTP."""
