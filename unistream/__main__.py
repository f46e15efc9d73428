"""`python -m unistream`."""

from unistream.cli import main

main()
