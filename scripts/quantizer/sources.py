"""The float model that an export is made from: a folder, or a snapshot of the Hub. Runs in the server's environment."""

from __future__ import annotations

import hashlib
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from scripts.model_source import is_local
from scripts.quantizer.exports import size
from scripts.quantizer.recipe import QuantizeError

# What a quantizer reads; copies of the weights in other formats are left on the Hub.
_WANTED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "README.md", "LICENSE*")
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Source:
    """``model`` is what the operator named, ``revision`` the Hub's commit or a hash of the folder, ``hub_id`` None for
    a folder."""

    model: str
    folder: Path
    revision: str
    hub_id: str | None

    @property
    def identity(self) -> str:
        """What the export's digest is made from."""
        return f"{self.hub_id or 'folder'}@{self.revision}"


def resolve(model: str) -> Source:
    """Return the source of ``model``; a Hub model is downloaded, in up to three tries.

    Raises:
        QuantizeError: the Hub refuses or does not answer, or the folder holds no safetensors.
    """
    if is_local(model):
        folder = Path(model).expanduser().resolve()
        source = Source(model, folder, _folder_revision(folder), None)
    else:
        folder = _download(model)
        source = Source(model, folder, folder.name, model)
    if not any(source.folder.glob("*.safetensors")):
        raise QuantizeError(f"model {model}: no weights (*.safetensors) to quantize")
    return source


def _folder_revision(folder: Path) -> str:
    """A hash of the small files' content and of the weight files' names, sizes and times."""
    state = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix == ".json":
            state.update(path.name.encode() + b"\0" + path.read_bytes())
        elif path.suffix == ".safetensors":
            status = path.stat()
            state.update(f"{path.name} {status.st_size} {status.st_mtime_ns}".encode())
    return state.hexdigest()[:16]


def _download(model: str) -> Path:
    from huggingface_hub import errors, snapshot_download

    for attempt in range(1, _TRIES + 1):
        try:
            return Path(snapshot_download(model, allow_patterns=list(_WANTED)))
        except (errors.RepositoryNotFoundError, errors.GatedRepoError, errors.HFValidationError) as error:
            raise QuantizeError(f"model {model}: {_first_line(error)}") from None
        except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
            if attempt == _TRIES:
                raise QuantizeError(f"model {model} cannot be downloaded: {_first_line(error)}") from None
            time.sleep(2**attempt)
    raise AssertionError("unreachable")


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))


def check_room(source: Source, place: Path, free_memory: int) -> None:
    """Check disk and memory before minutes are spent: twice the source on disk, and the weights in 16 bits in memory.

    Args:
        source: the float model.
        place: where exports are kept; it may not exist yet.
        free_memory: bytes.

    Raises:
        QuantizeError: too little of one of them.
    """
    weights = size(source.folder)
    there = place
    while not there.exists():
        there = there.parent
    free, needed = shutil.disk_usage(there).free, 2 * weights
    if free < needed:
        raise QuantizeError(f"{free / 1e9:.1f} GB of disk free in {there}, about {needed / 1e9:.1f} needed to quantize")
    needed = int(1.3 * weights) + 2 * 10**9
    if free_memory < needed:
        raise QuantizeError(
            f"{free_memory / 1e9:.1f} GB of memory free, about {needed / 1e9:.1f} needed to quantize {source.model}"
        )
