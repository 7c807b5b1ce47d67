"""SillyTavern's server, from its npm package: it stands between its page and a text server, and forwards to ours.

``python -m tests.real_clients.sillytavern`` installs the package below ``.venv-clients`` (about a minute, 430 MB).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx

from tests.real_clients.conftest import CLIENTS

VERSION = "1.19.0"
APP = CLIENTS / "sillytavern"
PACKAGE = APP / "node_modules" / "sillytavern"
WITHOUT_PAGE = Path(__file__).with_name("no_webpack.mjs")
START_S = 90.0


def install() -> None:
    """Install the package unless its version is there.

    Raises:
        subprocess.CalledProcessError: npm failed; its message is on stderr.
    """
    manifest = PACKAGE / "package.json"
    if manifest.is_file() and json.loads(manifest.read_text())["version"] == VERSION:
        return
    shutil.rmtree(APP, ignore_errors=True)
    APP.mkdir(parents=True)
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--omit=dev", "--ignore-scripts"]
    subprocess.run([*command, "--prefix", str(APP), f"sillytavern@{VERSION}"], check=True, timeout=600)


class SillyTavern:
    """A running server. `http` speaks to it as its page does."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.log = folder / "sillytavern.log"
        config = folder / "config.yaml"
        config.write_text("skipContentCheck: true\n")
        options = {
            "port": port, "dataRoot": folder / "data", "configPath": config, "browserLaunchEnabled": "false",
            "disableCsrf": "true", "listen": "false",
        }  # fmt: skip
        command = ["node", "--import", str(WITHOUT_PAGE), "server.js"]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=PACKAGE, env=environment, stdout=log, stderr=log)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self.http.get("/version").raise_for_status()
                return
            except httpx.HTTPError:
                time.sleep(0.2)
        self.stop()
        raise AssertionError(f"SillyTavern did not start:\n{self.log.read_text(errors='replace')[-3000:]}")

    def keep_key(self, kind: str, key: str) -> None:
        """Store the key of one API, such as ``custom`` or ``vllm``."""
        self.http.post("/api/secrets/write", json={"key": f"api_key_{kind}", "value": key}).raise_for_status()

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Send one request of the page; returns the JSON of the answer."""
        return self.http.post(f"/api/backends/{path}", json=body).raise_for_status().json()

    def stream(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Send one request of the page; returns the events of the stream, which has to end with ``[DONE]``."""
        with self.http.stream("POST", f"/api/backends/{path}", json=body) as answer:
            answer.raise_for_status()
            events = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
        assert events[-1] == "[DONE]"
        return [json.loads(event) for event in events[:-1]]

    def stop(self) -> None:
        """End the process."""
        self.http.close()
        self._process.terminate()
        self._process.wait(20)


if __name__ == "__main__":
    install()
