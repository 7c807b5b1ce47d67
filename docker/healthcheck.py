"""Ask /readyz: exit status 0 and the answer on stdout when it is 200, else 1 and the answer on stderr.

python healthcheck.py [URL]      without a URL: this container's own server, at PORT
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request


def main() -> int:
    """Command line; returns the exit status."""
    url = sys.argv[1] if len(sys.argv) > 1 else f"http://127.0.0.1:{os.environ.get('PORT', '8000')}/readyz"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a server here is never behind a proxy
    try:
        with opener.open(url, timeout=4) as answer:
            print(answer.read().decode(errors="replace"))
            return 0
    except urllib.error.HTTPError as error:
        with error:
            print(error.read().decode(errors="replace"), file=sys.stderr)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
