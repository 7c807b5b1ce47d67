"""One reply of the chat engine as text that may be shown: no banned phrase in it, ended at a stop.

The guard looks at every delta. While nothing is held, text passes straight through. When a banned phrase completes, the
running request is closed and generation goes back to the token where the phrase began: one step with that token
forbidden, then on from the cached prefix. What was taken back was never shown and does not count against the reply's
length.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from tokenizers.decoders import DecodeStream

from inference.engines.base import Delta, Engine, EngineDead, GenerationRequest
from inference.engines.sampling import Sampling
from inference.phrases.guard import Hit, PhraseAutomaton, PhraseGuard
from inference.phrases.vocabulary import TokensContaining, no_tokens_containing

RETRIES_PER_POSITION = 6
RETRIES_PER_REPLY = 48
# From then on in a reply, tokens that spell a phrase all by themselves are not drawn again: each of them would be taken
# back, so nothing else is lost, and a list that is met at every step costs no retry at every step.
RETRIES_BEFORE_FORBIDDING = 8
FORBIDDEN = -100.0
MAX_BIASES = 1000  # of the 1,024 that an engine takes; the rest is for what a retry forbids
_HALF = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class ReplyPlan:
    """What a reply is made of. ``logit_bias`` holds for every step; ``max_tokens`` bounds what is kept; ``spelling``
    knows the tokens that spell a phrase all by themselves."""

    prompt_ids: Sequence[int]
    sampling: Sampling
    max_tokens: int
    automaton: PhraseAutomaton
    logit_bias: Mapping[int, float]
    request_id: str
    spelling: TokensContaining = no_tokens_containing


class Reply:
    """Runs once: iterate :meth:`stream`, then read what it came to.

    ``finish_reason`` is ``stop`` or ``length`` after a whole reply, None after an interrupted one. ``suppressed``
    counts the phrases that were taken back or cut; ``prompt_tokens`` and ``cached_tokens`` are the engine's.
    """

    def __init__(self, engine: Engine, plan: ReplyPlan) -> None:
        self._engine = engine
        self._plan = plan
        self._guard = PhraseGuard(plan.automaton)
        self._ids: list[int] = []
        # (ids, characters) after each delta, in the guard's coordinate: where generation can go back to.
        self._marks: list[tuple[int, int]] = [(0, 0)]
        self._rough: set[int] = set()  # those of them that several tokens lead to at once
        self._ready = ""  # let go by the guard, waiting for the rest of its token to be let go too
        self._shown: list[str] = []
        self._forbidden: dict[int, set[int]] = {}
        self._bias = dict(plan.logit_bias)  # of every step
        self._retries = 0
        self._cut = False
        self._requests = 0
        self.finish_reason: str | None = None
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.suppressed = 0
        self.held_deltas = 0

    @property
    def completion_tokens(self) -> int:
        """Tokens that the reply kept; what was taken back is not counted."""
        return len(self._ids)

    @property
    def engine_requests(self) -> int:
        """Requests the reply needed: one, and two for each return to a phrase's beginning."""
        return self._requests

    def shown(self) -> str:
        """All text that has left :meth:`stream`."""
        return "".join(self._shown)

    def shown_ids(self, encode: Callable[[str], list[int]]) -> list[int]:
        """The ids of :meth:`shown`: those generated, as far as they spell it, the rest by ``encode``."""
        return self.ids_of(self.shown(), encode)

    def ids_of(self, text: str, encode: Callable[[str], list[int]]) -> list[int]:
        """The same of ``text``, the beginning of :meth:`shown` that reached the client."""
        if self._cut:
            return encode(text)
        count, length = self._boundary(len(text))
        return self._ids[:count] + (encode(text[length:]) if length < len(text) else [])

    async def stream(self) -> AsyncGenerator[str, None]:
        """Text in the order it may be shown, never empty. Raises :class:`EngineDead`."""
        bias, steps = self._bias, self._plan.max_tokens
        while True:
            begun = len(self._ids)
            hit: Hit | None = None
            ended: str | None = None
            async with aclosing(self._engine.generate(self._request(steps, bias))) as deltas:
                async for delta in deltas:
                    text, hit = self._take(delta)
                    if text:
                        yield text
                    if hit is not None:
                        break
                    ended = delta.finish_reason
            if hit is None:
                if ended not in ("stop", "length"):
                    raise EngineDead(f"the engine ended a request with {ended!r}")
                full = len(self._ids) - begun < steps  # the context is: fewer tokens came than were asked for
                if ended == "stop" or full or len(self._ids) >= self._plan.max_tokens:
                    text, hit = self._settle(*self._guard.finish())
                    if text:
                        yield text
                    if hit is None:
                        self.finish_reason = ended
                        return
            if hit is None:  # the one step with a token forbidden is done: on as before
                bias, steps = self._bias, self._plan.max_tokens - len(self._ids)
            elif hit.stop:
                self.finish_reason = "stop"
                return
            else:
                bias, steps = self._go_back(hit), 1

    # -- one delta ---------------------------------------------------------------------------------

    def _take(self, delta: Delta) -> tuple[str, Hit | None]:
        """What one delta lets go, and the hit that something must be done about."""
        if not self.prompt_tokens:
            self.prompt_tokens, self.cached_tokens = delta.prompt_tokens, delta.cached_tokens
        released, hit = self._guard.feed(delta.text) if delta.text else ("", None)
        holding = hit is not None or self._guard.held_from < self._guard.position
        self.held_deltas += holding
        # Several tokens in one delta matter only where generation may have to go back between them.
        if holding and len(delta.token_ids) > 1:
            self._mark_each(delta)
        else:
            self._ids += delta.token_ids
            self._marks.append((len(self._ids), self._marks[-1][1] + len(delta.text)))
            if len(delta.token_ids) > 1:
                self._rough.add(len(self._ids))
        return self._settle(released, hit)

    def _settle(self, released: str, hit: Hit | None) -> tuple[str, Hit | None]:
        """Cut out what may no longer be retried, and hold back the text that shares a token with held text."""
        self._ready += released
        while hit is not None and not hit.stop and not self._may_retry(hit):
            self.suppressed += 1
            self._cut = True
            released, hit = self._guard.skip()
            self._ready += released
        kept = 0
        if hit is None and self._guard.held_from < self._guard.position:
            boundary = self._boundary(self._guard.held_from)[1]
            if boundary < self._guard.held_from:
                kept = self._guard.held_from - self._guard.safe_end(boundary)
        elif hit is not None and not hit.stop:
            kept = hit.start - self._boundary(hit.start)[1]
        split = max(0, len(self._ready) - kept)
        text, self._ready = self._ready[:split], self._ready[split:]
        if text:
            self._shown.append(text)
        return text, hit

    def _mark_each(self, delta: Delta) -> None:
        """Marks between the tokens of one delta, where decoding them one by one gives the same text."""
        tokenizer = self._engine.tokenizer.backend_tokenizer
        before = [*self._plan.prompt_ids[-16:], *self._ids]
        stream = DecodeStream(ids=before[-16:], skip_special_tokens=True)
        pieces = [stream.step(tokenizer, token) or "" for token in delta.token_ids]
        count, length = self._marks[-1]
        if "".join(pieces) == delta.text:
            for piece in pieces:
                count, length = count + 1, length + len(piece)
                self._marks.append((count, length))
        else:
            self._marks.append((count + len(delta.token_ids), length + len(delta.text)))
            self._rough.add(count + len(delta.token_ids))
        self._ids += delta.token_ids

    # -- going back --------------------------------------------------------------------------------

    def _boundary(self, position: int) -> tuple[int, int]:
        """The last place between two tokens at or before ``position``: (ids, characters), before any token without
        text."""
        found = (0, 0)
        for count, length in reversed(self._marks):
            if length > position:
                continue
            if found != (0, 0) and length < found[1]:
                break
            found = (count, length)
        return self._before_half(found[0]), found[1]

    def _before_half(self, count: int) -> int:
        """``count`` without the tokens of half a character: a delta of several may end so, without it in its text."""
        if count not in self._rough:
            return count
        for whole in range(count, max(0, count - 3), -1):
            if not str(self._engine.tokenizer.decode(self._ids[max(0, whole - 4) : whole])).endswith(_HALF):
                return whole
        return max(0, count - 3)

    def _may_retry(self, hit: Hit) -> bool:
        tried = self._forbidden.get(self._boundary(hit.start)[0], ())
        return self._retries < RETRIES_PER_REPLY and len(tried) < RETRIES_PER_POSITION

    def _go_back(self, hit: Hit) -> dict[int, float]:
        """Forget everything from the phrase's first token on; the biases that keep it from coming again there."""
        count, length = self._boundary(hit.start)
        # What shares the first token with the phrase was let go by the guard, but never shown.
        self._ready = self._ready[: max(0, len(self._ready) - (hit.start - length))]
        forbidden = self._forbidden.setdefault(count, set())
        forbidden.add(self._ids[count])
        # What was forbidden further on belonged to a text that is gone.
        self._forbidden = {place: tokens for place, tokens in self._forbidden.items() if place <= count}
        del self._ids[count:]
        while self._marks[-1][0] > count:
            self._marks.pop()
        if self._marks[-1] != (count, length):
            self._marks.append((count, length))
        self._guard.rewind(length)
        self._retries += 1
        self.suppressed += 1
        if self._retries > RETRIES_BEFORE_FORBIDDING:
            spelling = sorted(self._plan.spelling(hit.phrase))[: max(0, MAX_BIASES - len(self._bias))]
            self._bias = {**self._bias, **dict.fromkeys(spelling, FORBIDDEN)}
        return {**self._bias, **dict.fromkeys(forbidden, FORBIDDEN)}

    def _request(self, steps: int, bias: Mapping[int, float]) -> GenerationRequest:
        self._requests += 1
        return GenerationRequest(
            request_id=f"{self._plan.request_id}.{self._requests}",
            prompt_ids=[*self._plan.prompt_ids, *self._ids] if self._ids else self._plan.prompt_ids,
            max_tokens=steps,
            sampling=self._plan.sampling,
            logit_bias=bias,
        )
