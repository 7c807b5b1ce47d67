"""Exit status 0 when /readyz of this container answers 200."""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request

try:
    with urllib.request.urlopen(f"http://127.0.0.1:{os.environ.get('PORT', '8000')}/readyz", timeout=4) as answer:
        print(answer.read().decode())
except urllib.error.HTTPError as error:
    sys.exit(error.read().decode())
except OSError as error:
    sys.exit(str(error))
