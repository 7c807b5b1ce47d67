#!/usr/bin/env python
"""Django's command line. ``serve`` and ``runserver`` start the engines, nothing else does."""

import os
import sys


def main() -> None:
    os.umask(0o077)  # the database, secrets and logs are their owner's alone
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "yapserver.settings")
    if sys.argv[1:2] == ["serve"]:
        from yapserver.event_loop import use_uvloop

        use_uvloop()  # before Django is set up: that imports Daphne, whose reactor takes a loop at once
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


# The engine processes are spawned and import this file again: the guard keeps them from running it.
if __name__ == "__main__":
    main()
