"""One reply of the chat engine as text without banned phrases.

The phrase guard reads every delta. When a banned phrase completes, the running request is closed and generation goes
back to the token with which the phrase began: one step with that token forbidden, then the rest from the cached prefix.
Removed text never reached the client and does not count against the reply's length.

Example, with ``Oh honey`` banned (``|`` are token boundaries, positions are characters since the reply's start):

    token_ids          a       b        c        d
    text            | Well | , Oh | ␣honey | , hi |
    position        0      4      8        14
    delta 1, "Well"     released at once: no banned phrase can begin here
    delta 2, ", Oh"     "Oh" (from 6) may begin the phrase: the guard releases ", " and holds "Oh".
                        ", " shares token b with held text, so it waits in _released_partial_token
    delta 3, " honey"   hit at 6: close the request, drop tokens b and c, set the guard back to position 4
    request 2           prompt + [a], one step, bias -100 on b     -> e.g. " my"
    request 3           prompt + [a, e], the remaining tokens      -> the reply goes on

A reasoning model's thoughts are taken out of each delta before the guard reads it (inference/thoughts.py). Thoughts
beyond ``think_max_tokens`` are closed: another request continues behind the closing mark.

A forbidden token is forbidden at its position only. Known limit: after a rewind the kept tokens are part of the prompt,
so vLLM's presence and frequency penalties, which count output tokens only, no longer see them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial

from tokenizers.decoders import DecodeStream

from inference.engines.base import Delta, Engine, EngineDead, GenerationRequest
from inference.phrases.guard import Hit, PhraseGuard
from inference.reply_plan import ReplyPlan
from inference.thoughts import ThoughtFilter

RETRIES_PER_POSITION = 6
RETRIES_PER_REPLY = 48
# After this many retries in one reply, tokens whose own text contains a phrase are forbidden in every step. Each such
# token would be removed anyway, and a list that matches at every step must not cost a retry at every step.
RETRIES_BEFORE_FORBIDDING = 8
FORBIDDEN_BIAS = -100.0
MAX_CLOSED_THOUGHTS = 2  # in one reply; then the reply ends
MAX_BIASES = 1000  # of the 1,024 that an engine takes; the rest is for tokens that a retry forbids
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Reply:
    """One reply. Iterate :meth:`stream` once; afterwards the attributes hold the result.

    Stages of text: *generated* by the engine → *released* by the guard and :meth:`stream` → *delivered* to the client
    by the turn, after the output style.

    Attributes:
        finish_reason: ``stop`` or ``length`` after a whole reply; None after an interrupted one.
        prompt_tokens: tokens of the prompt, counted from the first request on.
        cached_tokens: prompt tokens that the prefix cache held.
        suppressed: banned phrases that were rewound or cut.
        held_deltas: deltas after which the guard held text back.
    """

    def __init__(self, engine: Engine, prompt_ids: Sequence[int], plan: ReplyPlan, *, attempt: int = 0) -> None:
        self._engine = engine
        self._name = f"{plan.request_id}.{attempt}"
        self._prompt_ids = prompt_ids
        self._plan = plan
        self._guard = PhraseGuard(plan.automaton, plan.matchers)
        if plan.before:
            self._guard.begin_behind(plan.before)
        encode = partial(engine.tokenizer.encode, add_special_tokens=False)
        self._thoughts = ThoughtFilter(partial(encode, split_special_tokens=True), encode)
        self._closed_thoughts = 0
        self._ids: list[int] = []
        # (number of ids, position) after each delta: the places where generation can resume.
        self._token_boundaries: list[tuple[int, int]] = [(0, len(plan.before))]
        self._multi_token_boundaries: set[int] = set()  # numbers of ids that end a delta of several tokens
        self._released_partial_token = ""  # nosec B105  # text the guard released; waits until its token is complete
        self._released: list[str] = []
        self._forbidden: dict[int, set[int]] = {}  # number of ids before the step -> tokens forbidden there
        self._bias = dict(plan.logit_bias)
        self._retries = 0
        self._was_cut = False
        self._requests = 0
        self.finish_reason: str | None = None
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.suppressed = 0
        self.held_deltas = 0

    @property
    def completion_tokens(self) -> int:
        """Tokens that the reply kept. A token that the thought filter divided and encoded again counts once at most."""
        return min(len(self._ids), self._plan.max_tokens)

    @property
    def reasoning_tokens(self) -> int:
        """Generated tokens that were thoughts; not part of :attr:`completion_tokens`."""
        return self._thoughts.reasoning_tokens

    @property
    def requests(self) -> int:
        """Engine requests so far: one, and two more for each rewind."""
        return self._requests

    def released(self) -> str:
        """Return all text that :meth:`stream` has yielded."""
        return "".join(self._released)

    def released_ids(self, encode: Callable[[str], list[int]]) -> list[int]:
        """Return the ids of :meth:`released`: generated ids where they spell the text, the rest by ``encode``."""
        return self.ids_of(self.released(), encode)

    def ids_of(self, text: str, encode: Callable[[str], list[int]]) -> list[int]:
        """Return the ids of ``text``, a prefix of :meth:`released`, in the same way."""
        if self._was_cut:
            return encode(text)
        start = len(self._plan.before)
        count, length = self._boundary(start + len(text))
        length -= start
        return self._ids[:count] + (encode(text[length:]) if length < len(text) else [])

    async def stream(self) -> AsyncGenerator[str, None]:
        """Yield released text in order, never empty.

        Raises:
            EngineDead: the engine died.
        """
        bias, steps = self._bias, self._plan.max_tokens
        while True:
            generated = 0
            hit: Hit | None = None
            ended: str | None = None
            async with aclosing(self._engine.generate(self._request(steps, bias))) as deltas:
                async for delta in deltas:
                    generated += len(delta.token_ids)
                    delta.text, delta.token_ids = self._thoughts.feed(delta.text, delta.token_ids)
                    text, hit = self._take(delta)
                    if text:
                        yield text
                    if hit is not None:
                        break
                    ended = delta.finish_reason
                    if ended is None and self._thinks_too_long():
                        break
            if hit is None:
                if ended not in ("stop", "length") and not self._thinks_too_long():
                    raise EngineDead(f"the engine ended a request with {ended!r}")
                context_full = ended == "length" and generated < steps
                whole = ended == "stop" or context_full or self._tokens_left() <= 0
                if self._thoughts.thinking and not context_full:
                    whole = not self._may_think_on(ended)
                if whole:
                    text, hit = self._end()
                    if text:
                        yield text
                    if hit is None:
                        self.finish_reason = ended or "length"
                        return
            if hit is None:  # the single step with a forbidden token is done, or the request ended inside of thoughts
                bias, steps = self._bias, max(1, self._tokens_left())
            elif hit.stop:
                self.finish_reason = "stop"
                return
            else:
                bias, steps = self._rewind(hit), 1

    # -- thoughts ----------------------------------------------------------------------------------

    def _tokens_left(self) -> int:
        return self._plan.max_tokens - len(self._ids) - len(self._thoughts.held_ids)

    def _thinks_too_long(self) -> bool:
        return self._thoughts.thinking and self._thoughts.reasoning_tokens >= self._plan.think_max_tokens

    def _may_think_on(self, ended: str | None) -> bool:
        """Close thoughts that are too long or that the model did not end. Returns False where nothing may follow."""
        if ended == "length" and not self._thinks_too_long():
            return True
        self._closed_thoughts += 1
        self._thoughts.close_thoughts()
        return self._closed_thoughts <= MAX_CLOSED_THOUGHTS

    def _end(self) -> tuple[str, Hit | None]:
        """Release the rest of the reply, after its last request."""
        text, ids = self._thoughts.finish()
        first, hit = self._take(Delta(text, ids, None, 0, 0)) if text else ("", None)
        if hit is not None:
            return first, hit
        released, hit = self._release(*self._guard.finish())
        return first + released, hit

    # -- one delta ---------------------------------------------------------------------------------

    def _take(self, delta: Delta) -> tuple[str, Hit | None]:
        """Feed one delta to the guard. Returns the text to yield, and a hit that needs a rewind or an end."""
        if self._requests == 1 and delta.prompt_tokens:
            self.prompt_tokens, self.cached_tokens = delta.prompt_tokens, delta.cached_tokens
        released, hit = self._guard.feed(delta.text) if delta.text else ("", None)
        holding = hit is not None or self._guard.held_from < self._guard.position
        self.held_deltas += holding
        # The boundaries between several tokens of one delta matter only where generation may go back between them.
        if holding and len(delta.token_ids) > 1:
            self._add_each_boundary(delta)
        else:
            self._ids += delta.token_ids
            self._token_boundaries.append((len(self._ids), self._token_boundaries[-1][1] + len(delta.text)))
            if len(delta.token_ids) > 1:
                self._multi_token_boundaries.add(len(self._ids))
        return self._release(released, hit)

    def _release(self, released: str, hit: Hit | None) -> tuple[str, Hit | None]:
        """Cut labels and the phrases that may not be retried, and keep text that shares a token with held text."""
        self._released_partial_token += released
        while hit is not None and not hit.stop and (hit.label or not self._may_retry(hit)):
            self.suppressed += not hit.label
            self._was_cut = True
            released, hit = self._guard.skip()
            self._released_partial_token += released
        kept = 0
        if hit is None and self._guard.held_from < self._guard.position:
            boundary = self._boundary(self._guard.held_from)[1]
            if boundary < self._guard.held_from:
                kept = self._guard.held_from - self._guard.safe_end(boundary)
        elif hit is not None and not hit.stop:
            kept = hit.start - self._boundary(hit.start)[1]
        waiting = self._released_partial_token
        split = max(0, len(waiting) - kept)
        text, self._released_partial_token = waiting[:split], waiting[split:]
        if text:
            self._released.append(text)
        return text, hit

    def _add_each_boundary(self, delta: Delta) -> None:
        """Add the boundaries between the tokens of one delta, where single decoding gives the same text."""
        tokenizer = self._engine.tokenizer.backend_tokenizer
        before = [*self._prompt_ids[-16:], *self._ids]
        stream = DecodeStream(ids=before[-16:], skip_special_tokens=True)
        pieces = [stream.step(tokenizer, token) or "" for token in delta.token_ids]
        count, length = self._token_boundaries[-1]
        if "".join(pieces) == delta.text:
            for piece in pieces:
                count, length = count + 1, length + len(piece)
                self._token_boundaries.append((count, length))
        else:
            self._token_boundaries.append((count + len(delta.token_ids), length + len(delta.text)))
            self._multi_token_boundaries.add(count + len(delta.token_ids))
        self._ids += delta.token_ids

    # -- rewinding ---------------------------------------------------------------------------------

    def _boundary(self, position: int) -> tuple[int, int]:
        """Return the last token boundary at or before ``position``, before any token without text.

        Returns:
            (number of ids, position of the boundary in characters).
        """
        first = found = self._token_boundaries[0]
        for count, length in reversed(self._token_boundaries):
            if length > position:
                continue
            if found != first and length < found[1]:
                break
            found = (count, length)
        return self._without_half_character(found[0]), found[1]

    def _without_half_character(self, count: int) -> int:
        """Reduce a number of ids so that the ids do not end inside a character.

        A delta of several tokens may end in half a character that its text does not contain.
        """
        if count not in self._multi_token_boundaries:
            return count
        for whole in range(count, max(0, count - 3), -1):
            if not str(self._engine.tokenizer.decode(self._ids[max(0, whole - 4) : whole])).endswith(_REPLACEMENT):
                return whole
        return max(0, count - 3)

    def _may_retry(self, hit: Hit) -> bool:
        if self._plan.json_schema is not None:
            return False
        tried = self._forbidden.get(self._boundary(hit.start)[0], ())
        return self._retries < RETRIES_PER_REPLY and len(tried) < RETRIES_PER_POSITION

    def _rewind(self, hit: Hit) -> dict[int, float]:
        """Drop everything from the phrase's first token on. Returns the biases of the next step."""
        count, length = self._boundary(hit.start)
        # Text that shares the phrase's first token was released by the guard but not yielded.
        waiting = self._released_partial_token
        self._released_partial_token = waiting[: max(0, len(waiting) - (hit.start - length))]
        forbidden = self._forbidden.setdefault(count, set())
        forbidden.add(self._ids[count])
        # Tokens forbidden at later positions belonged to dropped text.
        self._forbidden = {before: tokens for before, tokens in self._forbidden.items() if before <= count}
        del self._ids[count:]
        self._thoughts.drop_held()
        while self._token_boundaries[-1][0] > count:
            self._token_boundaries.pop()
        if self._token_boundaries[-1] != (count, length):
            self._token_boundaries.append((count, length))
        self._guard.rewind(length)
        self._retries += 1
        self.suppressed += 1
        if self._retries > RETRIES_BEFORE_FORBIDDING:
            room = max(0, MAX_BIASES - len(self._bias))
            containing = sorted(self._plan.tokens_containing(hit.phrase))[:room]
            self._bias = {**self._bias, **dict.fromkeys(containing, FORBIDDEN_BIAS)}
        return {**self._bias, **dict.fromkeys(forbidden, FORBIDDEN_BIAS)}

    def _request(self, steps: int, bias: Mapping[int, float]) -> GenerationRequest:
        if not self._requests:
            self.prompt_tokens = len(self._prompt_ids)  # charged from the submission on, also for a cancelled turn
        self._requests += 1
        generated = [*self._thoughts.prefix_ids, *self._ids, *self._thoughts.held_ids]
        return GenerationRequest(
            request_id=f"{self._name}.{self._requests}",
            prompt_ids=[*self._prompt_ids, *generated] if generated else self._prompt_ids,
            max_tokens=steps,
            sampling=self._plan.sampling,
            logit_bias=bias,
            cache_salt=self._plan.cache_salt,
            affinity=self._plan.affinity,
            json_schema=self._plan.json_schema,
        )
