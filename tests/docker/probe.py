"""Say whether a Docker Engine can be started here; scripts/test.sh skips the docker suite by name where it cannot."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.docker.daemon import DockerDaemon, missing


def main() -> int:
    """Command line; returns the exit status, with the reason on stdout."""
    if (reason := missing()) is not None:
        print(reason)
        return 1
    with tempfile.TemporaryDirectory(prefix="yap-docker-probe-", dir="/var/tmp") as folder:
        daemon = DockerDaemon(Path(folder))
        try:
            daemon.start()
        except AssertionError as error:
            print(f"no Docker Engine starts here: {str(error).strip().splitlines()[-1]}")
            return 1
        finally:
            daemon.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
