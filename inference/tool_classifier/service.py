"""The classifier of a serving process: the head in force and its encoder. Replaced as a whole with the catalogue."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

from inference.tool_classifier.encoder import SentenceEncoder
from inference.tool_classifier.head import Head, HeadMismatch, ToolChoice, read_head
from personas.tool_snapshot import ToolHeadSnapshot

FIRST_LINE = "Hello! Who are you?"

logger = logging.getLogger("yap.tool")


class ToolClassifier:
    """Decides with the head in force. All methods but :meth:`prepare` belong to the serving loop.

    Args:
        encoder: the sentence encoder of this server; None for none.
    """

    def __init__(self, encoder: SentenceEncoder | None = None) -> None:
        self._encoder = encoder
        self._head: Head | None = None
        self._threshold = 0.5
        self._number: int | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encoder") if encoder else None

    def prepare(self, stored: ToolHeadSnapshot | None) -> Head | None:
        """Read a stored head and decide once with it; in any thread. A head that does not fit is logged and is None.

        The first decision of a process takes ten times as long as the next: NumPy, its BLAS and a sentence encoder
        initialise themselves at their first use.
        """
        if stored is None:
            return None
        if stored.number == self._number:
            return self._head
        try:
            head = read_head(stored.data, self._encoder.name if self._encoder else None)
            head.choose(
                FIRST_LINE, (FIRST_LINE,), embedding=self._encoder.encode([FIRST_LINE])[0] if self._encoder else None
            )
            return head
        except HeadMismatch as error:
            logger.warning("tool classifier version %d is not used: %s", stored.number, error)
            return None

    def install(self, stored: ToolHeadSnapshot | None, head: Head | None) -> None:
        """Put a head that :meth:`prepare` returned in force, from the next decision on."""
        number = stored.number if stored is not None else None
        if number != self._number and head is not None:
            logger.info("tool classifier version %s decides on %s", number, ", ".join(head.tools))
        self._number, self._head = number, head
        if stored is not None:
            self._threshold = stored.threshold

    @property
    def ready(self) -> bool:
        """Whether a head is in force."""
        return self._head is not None

    def knows(self, tools: Collection[str]) -> bool:
        """Whether the head in force was trained for every one of these tools."""
        return self._head is not None and self._head.knows(tools)

    async def choose(
        self, text: str, earlier: Sequence[str], tools: Collection[str], threshold: float | None
    ) -> ToolChoice:
        """Decide on one line. Without an encoder this never waits.

        Args:
            text: the line.
            earlier: the lines before it, oldest first.
            tools: the tools in force.
            threshold: probability of yes from which a tool is called; None: the head's.
        """
        head, encoder = self._head, self._encoder
        if head is None:
            return ToolChoice(None, 0.0, None)
        embedding = None
        if encoder is not None:
            loop = asyncio.get_running_loop()
            embedding = (await loop.run_in_executor(self._thread, encoder.encode, [text]))[0]
        limit = self._threshold if threshold is None else threshold
        return head.choose(text, earlier, tools=tools, threshold=limit, embedding=embedding)
