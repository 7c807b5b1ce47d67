"""Copy the files whose names come on stdin, separated by NUL, into a folder: the context of docker/build.sh."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def main() -> int:
    """Command line; returns the exit status."""
    target = Path(sys.argv[1])
    for name in sys.stdin.buffer.read().decode().split("\0"):
        source = Path(name)
        if name and source.is_file():  # a file that is deleted and still tracked is left out
            (target / source.parent).mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / source)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
