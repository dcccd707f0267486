"""`python -m iiot_platform.cli` is `iiot`."""

from iiot_platform.cli.app import main

main()
