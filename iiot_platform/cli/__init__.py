"""The `iiot` command: each command is one module, imported when it is called."""

from iiot_platform.cli.app import main

__all__ = ["main"]
