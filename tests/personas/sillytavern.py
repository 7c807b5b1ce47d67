"""The character card that ships with SillyTavern, from its npm package.

``python -m tests.personas.sillytavern`` fetches the package with npm (38 MB) and keeps the picture in
``.models/cards``; a test that needs it fetches it, too.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

VERSION = "1.19.0"
SHA256 = "3b81b1bd97ad5e486dcab8797e09adff8c58e57c00ec35175dfa848557593845"  # of the package's archive
MEMBER = "package/default/content/default_Seraphina.png"
PICTURE = Path(__file__).resolve().parents[2] / ".models" / "cards" / f"sillytavern-{VERSION}.png"


def seraphina() -> bytes:
    """Return the picture with SillyTavern's default card.

    Raises:
        ValueError: The archive is not the pinned one.
        subprocess.CalledProcessError: npm failed; its message is on stderr.
    """
    if not PICTURE.is_file():
        with tempfile.TemporaryDirectory() as folder:
            command = ["npm", "pack", "--silent", "--pack-destination", folder, f"sillytavern@{VERSION}"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=600)
            (archive,) = Path(folder).glob("*.tgz")
            found = hashlib.sha256(archive.read_bytes()).hexdigest()
            if found != SHA256:
                raise ValueError(f"{archive.name}: its sha256 is {found}, expected {SHA256}")
            with tarfile.open(archive) as packed:
                member = packed.extractfile(MEMBER)
                assert member is not None
                PICTURE.parent.mkdir(parents=True, exist_ok=True)
                partial = PICTURE.with_suffix(f".{os.getpid()}.part")
                partial.write_bytes(member.read())
                partial.replace(PICTURE)
    return PICTURE.read_bytes()


if __name__ == "__main__":
    seraphina()
