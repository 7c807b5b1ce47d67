"""Places in a text that parts were cut from."""

from __future__ import annotations


class Cuts:
    """The parts cut from a text. Maps indexes of the remaining text to coordinates of the text as it was, and back.

    Example: ``Well, oh honey you`` without ``oh honey `` is ``Well, you``. The index 6 (``y``) has the coordinate 15.
    """

    __slots__ = ("_cuts",)

    def __init__(self) -> None:
        self._cuts: list[tuple[int, int]] = []  # (index that the cut stands before, characters cut), ascending

    def coordinate(self, index: int) -> int:
        """Return the coordinate of the character at ``index``."""
        return index + sum(length for at, length in self._cuts if at <= index) if self._cuts else index

    def index(self, coordinate: int) -> int:
        """Return the index of the first remaining character at or behind a coordinate."""
        return coordinate - sum(length for _, length in self._before(coordinate))

    def truncate(self, coordinate: int) -> None:
        """Drop the cuts, and the part of a cut, at or behind a coordinate."""
        self._cuts = self._before(coordinate)

    def add(self, start: int, end: int) -> None:
        """Note that the characters ``[start, end)`` of the text that remains are cut, and all text behind them."""
        inside = sum(length for index, length in self._cuts if start < index <= end)
        self._cuts = [cut for cut in self._cuts if cut[0] <= start] + [(start, end - start + inside)]

    def extend_last(self, count: int) -> None:
        """Note that ``count`` more characters behind the last cut are cut."""
        index, length = self._cuts[-1]
        self._cuts[-1] = index, length + count

    def _before(self, coordinate: int) -> list[tuple[int, int]]:
        cuts: list[tuple[int, int]] = []
        shift = 0
        for index, length in self._cuts:
            if coordinate <= index + shift:
                break
            cuts.append((index, min(length, coordinate - index - shift)))
            shift += cuts[-1][1]
        return cuts
