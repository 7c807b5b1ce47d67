"""Where exports are kept, and how one appears: made beside its place, renamed when complete. Standard library only."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.quantizer.recipe import QuantizeError

METADATA = "awq_metadata.json"


def folder_name(source: str, digest: str) -> str:
    """Return `<owner--name>-<digest>` for a Hub id, `<name>-<digest>` for a folder."""
    name = source.rstrip("/").rpartition("/")[2] if source.startswith(("/", ".", "~")) else source.replace("/", "--")
    return f"{re.sub(r'[^A-Za-z0-9._-]', '-', name)[:80]}-{digest}"


def metadata(export: Path) -> dict[str, Any] | None:
    """Return the metadata of a complete export; None where there is none.

    Raises:
        QuantizeError: the folder is there and is not an export.
    """
    if not export.exists():
        return None
    try:
        found = json.loads((export / METADATA).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise QuantizeError(f"{export} is there and is not an export: move it away") from None
    if not isinstance(found, dict) or not (export / "config.json").is_file():
        raise QuantizeError(f"{export} is there and is not an export: move it away")
    return found


@contextmanager
def making(export: Path) -> Iterator[Path | None]:
    """Make an export: yields a work folder beside it, and renames its `model` folder when the block ends.

    A kill leaves a hidden work folder that the next run removes, and never half an export. Yields None where another
    process has made the export while this one waited for it.

    Raises:
        QuantizeError: the place cannot be written.
    """
    try:
        export.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(export.parent / f".{export.name}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise QuantizeError(f"{export.parent} cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if export.exists():
            yield None
            return
        for stale in export.parent.glob(f".{export.name}-*"):  # nothing else works here while the lock is held
            shutil.rmtree(stale, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=f".{export.name}-", dir=export.parent))
        try:
            yield work
            publish(work / "model", export)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    finally:
        os.close(lock)


def publish(made: Path, export: Path) -> None:
    """Make every file readable by others, write all of it to the disk, and rename the folder to its place."""
    for folder, _, files in os.walk(made):
        os.chmod(folder, 0o755)  # nosec B103  # a container reads it as another user
        for name in files:
            path = Path(folder, name)
            path.chmod(0o644)  # safetensors are written for their owner alone, and a container runs as another user
            with path.open("rb") as file:
                os.fsync(file.fileno())
    made.rename(export)


def size(folder: Path) -> int:
    """Bytes of the weight files in a model's folder."""
    files = [*folder.glob("*.safetensors")] or [*folder.glob("*.bin")]
    return sum(file.stat().st_size for file in files)
