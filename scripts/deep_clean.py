"""Remove what this checkout installed, made and cached; scripts/stop.sh runs it. Standard library only.

    python3 scripts/deep_clean.py checkout [home] [--dry-run]

Prints what goes, with its size, and what is kept, with the reason. No symbolic link is followed: neither one that a
folder is reached by nor one inside it. Exit status 1 where something could not be removed.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_MODELS = ("SmolLM2-135M-Instruct", "tiny-random-llama", "awq")


@dataclass(frozen=True, slots=True)
class Target:
    """A folder that may go. ``boundary``: between it and ``path`` no symbolic link is passed; None: the folder's own
    parent is taken as it is."""

    path: Path
    what: str
    boundary: Path | None = None


def checkout_targets(root: Path, environ: Mapping[str, str]) -> Iterator[Target]:
    """What belongs to the checkout at ``root``.

    Args:
        root: the checkout, without symbolic links in its path.
        environ: `RUN_DIR`, `MODELS_DIR`, and `TEMPORARY_FOLDER` for the checkout's own folder of temporary files.
    """
    yield Target(root / ".venv", "the server's packages", root)
    yield Target(root / ".venv-quantize", "the quantizer's packages", root)
    yield Target(root / ".venv-release", "the tools of scripts/release.sh", root)
    yield Target(root / ".venv-clients", "the clients that tests run", root)
    models = Path(environ.get("MODELS_DIR") or root / ".models").absolute()
    if models.is_relative_to(root):  # a folder outside may serve other checkouts too
        for name in _MODELS:
            yield Target(models / name, "4-bit exports" if name == "awq" else "a model made here", root)
    run = Path(environ.get("RUN_DIR") or root / ".run").absolute()
    yield Target(run / "static", "static files", root if run.is_relative_to(root) else None)
    yield Target(root / ".cache", "caches of vLLM, inductor, triton and flashinfer", root)
    for folder, names, _ in os.walk(root):
        # .git is no folder of ours, nor is another checkout below; the environments go as a whole.
        skipped = {".git", ".venv", ".venv-quantize", ".venv-release", ".venv-clients"}
        names[:] = [name for name in names if name not in skipped and not Path(folder, name, ".git").exists()]
        if "__pycache__" in names:
            names.remove("__pycache__")
            yield Target(Path(folder, "__pycache__"), "byte code", root)
    if temporary := environ.get("TEMPORARY_FOLDER"):
        yield Target(Path(temporary), "temporary files of this checkout")


def home_targets(environ: Mapping[str, str]) -> Iterator[Target]:
    """The user's caches: what the Hub's library, torch, vLLM, triton, pip, uv and the NVIDIA driver can make again."""
    home = Path(environ["HOME"])
    cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    hub = Path(environ.get("HF_HOME") or cache / "huggingface")
    yield Target(Path(environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or hub / "hub"), "Hub cache")
    yield Target(Path(environ.get("HF_XET_CACHE") or hub / "xet"), "Hub cache")
    yield Target(Path(environ.get("TORCH_HOME") or cache / "torch"), "torch cache")
    yield Target(cache / "vllm", "vLLM cache")
    yield Target(cache / "flashinfer", "flashinfer cache")
    yield Target(home / ".triton" / "cache", "triton cache")
    yield Target(Path(environ.get("PIP_CACHE_DIR") or cache / "pip"), "pip cache")
    yield Target(Path(environ.get("UV_CACHE_DIR") or cache / "uv"), "uv cache")
    yield Target(Path(environ.get("CUDA_CACHE_PATH") or home / ".nv" / "ComputeCache"), "NVIDIA JIT cache")


def protected(root: Path, environ: Mapping[str, str]) -> list[Path]:
    """What is never removed: a target that holds one of these stays whole."""
    run = Path(environ.get("RUN_DIR") or root / ".run").absolute()
    hub = Path(environ.get("HF_HOME") or Path(environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface").expanduser()
    kept = [root, run, Path(environ.get("HOME") or "/"), hub / "token", hub / "stored_tokens", Path.cwd()]
    files = ("LOG_FILE", "ENV_FILE", "HF_TOKEN_PATH", *(name for name in environ if name.endswith("_FILE")))
    return [*kept, *(Path(environ[name]).absolute() for name in files if environ.get(name))]


def obstacle(target: Target, kept: list[Path], root: Path) -> str | None:
    """Return why a target is not removed; None where it is."""
    path = target.path
    if path.is_symlink():
        return f"a symbolic link to {os.readlink(path)}"
    if target.boundary is not None and path.parent.resolve() != path.parent:
        return "reached by a symbolic link"
    if os.path.ismount(path):
        return "a mount point"
    real = path.resolve()
    for other in kept:
        if other.resolve().is_relative_to(real) or other.is_relative_to(path):
            return f"{other} lies in it" if other != path else "never removed"
    if root.is_relative_to(real):
        return "the checkout lies in it"
    if path.stat().st_uid != os.getuid():
        return "it belongs to another user"
    return None


def size(path: Path) -> int:
    """Bytes on disk below ``path``, a file with several names counted once; links are not followed."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for folder, _, files in os.walk(path):
        for name in (*files, ""):
            try:
                status = os.lstat(os.path.join(folder, name))
            except OSError:
                continue
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                total += status.st_blocks * 512
    return total


def shown(count: int) -> str:
    """A number of bytes for people."""
    for unit in ("GB", "MB"):
        factor = 10**9 if unit == "GB" else 10**6
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count / 1000:.0f} kB"


def remove(path: Path, dry: bool) -> str | None:
    """Remove a folder unless ``dry``; return the reason where something of it is left."""
    failures: list[str] = []

    def failed(_function: object, name: str, error: tuple[type[BaseException], BaseException, object]) -> None:
        failures.append(f"{name}: {getattr(error[1], 'strerror', None) or error[1]}")

    if not dry:
        shutil.rmtree(path, onerror=failed)
    return failures[0] if failures else None


def clean(targets: Iterator[Target], root: Path, environ: Mapping[str, str], dry: bool) -> int:
    """Remove the targets, print each, and return how many could not be removed."""
    kept, left, freed = protected(root, environ), 0, 0
    byte_code: list[int] = []
    for target in targets:
        if not target.path.is_dir() and not target.path.is_symlink():
            continue
        if (reason := obstacle(target, kept, root)) is not None:
            print(f"yap: kept    {target.path}: {reason}")
            continue
        count = size(target.path)
        if (problem := remove(target.path, dry)) is not None:
            left += 1
            print(f"yap: FAILED  {target.path}: {problem}", file=sys.stderr)
            continue
        freed += count
        if target.what == "byte code":
            byte_code.append(count)
        else:
            print(f"yap: {'would remove' if dry else 'removed'} {shown(count):>9}  {target.path} ({target.what})")
    if byte_code:
        folders = f"{len(byte_code)} folders __pycache__"
        print(f"yap: {'would remove' if dry else 'removed'} {shown(sum(byte_code)):>9}  {folders} (byte code)")
    print(f"yap: {shown(freed)} {'would be free' if dry else 'removed'}; packages that uv's cache shares free less")
    return left


def tell_kept(root: Path, environ: Mapping[str, str]) -> None:
    """Print what stays in every mode."""
    run = Path(environ.get("RUN_DIR") or root / ".run")
    print(f"yap: kept    {run}: database, secrets, keys, logs, the record of the last start")
    models = Path(environ.get("MODELS_DIR") or root / ".models").absolute()
    if not models.is_relative_to(root):
        print(f"yap: kept    {models}: outside this checkout")
    hub = Path(environ.get("HF_HOME") or Path(environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface").expanduser()
    print(f"yap: kept    {hub / 'token'}: the Hub login")


def main() -> int:
    """Command line; returns the exit status."""
    words = sys.argv[1:]
    dry = "--dry-run" in words

    def targets() -> Iterator[Target]:
        yield from checkout_targets(ROOT, os.environ)
        if "home" in words:
            yield from home_targets(os.environ)

    if "home" in words and not Path(os.environ.get("HOME") or "-").is_dir():
        print("yap: HOME is not set to a folder: the user's caches are not touched", file=sys.stderr)
        return 1
    left = clean(targets(), ROOT, os.environ, dry)
    tell_kept(ROOT, os.environ)
    return 1 if left else 0


if __name__ == "__main__":
    raise SystemExit(main())
