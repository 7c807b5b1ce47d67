"""Django settings of a test run: nothing from the shell, and nothing written into the checkout."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

from yapserver.env import Environment

for _name in Environment.model_fields:
    os.environ.pop(_name, None)
_folder = tempfile.mkdtemp(prefix="yap-tests-")
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
os.environ |= {"ENV_FILE": "", "RUN_DIR": _folder, "TOOL_DECISION": "model", "TEXT_API_KEY": "hV7tq2mLr9wZc4nBd8fK"}

from yapserver.settings import *  # noqa: E402, F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# Processes that tests start use the project's own settings.
os.environ["DJANGO_SETTINGS_MODULE"] = "yapserver.settings"
