"""`python -m labkit` is the command `labkit`."""

from labkit_apps.cli.main import main

main()
