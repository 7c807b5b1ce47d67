from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scripts.checkout import Checkout


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    """A stand-in checkout; whatever carries its mark is ended with it."""
    (tmp_path / "checkout").mkdir()
    made = Checkout(tmp_path / "checkout")
    yield made
    made.shell('end_leftovers; rmdir "$(temporary_folder)" 2>/dev/null || true')
