"""Pings a server every 10 ms from a process of its own: ``python -m tests.security.pinger URL KEY``.

Each line of output is one pong: when its ping was due and when it arrived, in seconds of the machine's monotonic clock.
"""

from __future__ import annotations

import sys
import time

from websockets.sync.client import connect

EVERY_S = 0.010


def main(url: str, key: str) -> None:
    """Until standard output is closed."""
    with connect(url, additional_headers={"X-API-Key": key}) as line:
        due = time.monotonic()
        while True:
            line.send('{"type":"ping"}')
            line.recv(30)
            print(f"{due:.6f} {time.monotonic():.6f}", flush=True)
            due = max(due + EVERY_S, time.monotonic() - EVERY_S)
            time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (BrokenPipeError, KeyboardInterrupt):
        sys.exit(0)
