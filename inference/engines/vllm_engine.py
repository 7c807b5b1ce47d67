"""vLLM behind the engine protocol; the only module that imports vLLM. Supports 0.26 to 0.32.

The versions differ in one relevant point: bad requests are `ValueError` before 0.32 and `VLLMClientError` in it. vLLM
is imported when an engine is built, never before.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import replace
from functools import cache, partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from inference.engines import model_config
from inference.engines.arguments import LaunchPlan, plan
from inference.engines.base import Delta, EngineDead, EngineRole, GenerationRequest
from inference.engines.deadlines import Deadlines
from inference.engines.device import Device, probe
from inference.engines.late_tokens import LateTokens
from inference.engines.spec import EngineSpec, ModelRefused
from inference.engines.tokenizer import end_token_ids, read_tokenizer, repeated_text

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

TESTED = ((0, 26), (0, 32))
# vLLM's GPU sampler stores this many biases per request; one more crashes the engine.
MAX_LOGIT_BIASES = 1024
_FINISH = {"repetition": "stop"}
# vLLM changes these variables of this process during a build; other child processes must not inherit them.
_EDITED = ("LD_PRELOAD", "LOCAL_WORLD_SIZE", "NUMEXPR_MAX_THREADS")


@cache
def this_device() -> Device:
    """Return the machine's facts, probed before the first engine."""
    return probe()


def build(spec: EngineSpec) -> VllmEngine:
    """Build one engine; takes seconds to minutes, so never on an event loop.

    Raises:
        ModelRefused: this machine cannot run the model with these settings.
        Exception: vLLM's own error if its engine process does not start.
    """
    device = this_device()
    launch = plan(spec, device, model_config.read(spec.model))
    loaded = read_tokenizer(spec.model, spec.chat_template)
    os.environ.update(launch.environ)
    import vllm

    _check_version(vllm.__version__)
    if not loaded.repaired:
        return VllmEngine(spec, launch, loaded.tokenizer)
    # The constructor loads the tokenizer again, in this process and in the engine's.
    with TemporaryDirectory(prefix="yap-tokenizer-") as folder:
        loaded.save(folder)
        launch = replace(launch, arguments={**launch.arguments, "tokenizer": folder})
        return VllmEngine(spec, launch, loaded.tokenizer)


class VllmEngine:
    """One `AsyncLLM`, built in a thread, then bound to the serving loop by :meth:`bind`."""

    def __init__(self, spec: EngineSpec, launch: LaunchPlan, tokenizer: PreTrainedTokenizerBase) -> None:
        from vllm import exceptions
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        self.role: EngineRole = spec.role
        self.model = spec.model
        self.max_model_len = spec.max_model_len
        self.tokenizer = tokenizer
        self._launch = launch
        self._tokens_input = tokens_input
        self._structured = StructuredOutputsParams
        self._dead_errors = (EngineDeadError,)
        self._lost_errors = (EngineGenerateError,)
        refused: type[Exception] = getattr(exceptions, "VLLMClientError", ValueError)
        self._bad_request = (refused, ValueError)
        recorder, self._metrics = _metrics_recorder()
        self.registry: CollectorRegistry = self._metrics.registry
        with lent_environment(launch.process_environ):
            try:
                args = AsyncEngineArgs(**launch.arguments)
                config = args.create_engine_config(UsageContext.ENGINE_CONTEXT)
            except (ValueError, NotImplementedError) as error:
                raise ModelRefused(f"{spec.role} model {spec.model}: {_first_line(error)}") from error
            self._llm = AsyncLLM.from_vllm_config(
                config, usage_context=UsageContext.ENGINE_CONTEXT, stat_loggers=[recorder], enable_log_requests=False
            )
        self._late = LateTokens(self._llm.output_processor, self._metrics.tokens_after_cancel)
        self._deadlines = Deadlines()
        self._ends = end_token_ids(tokenizer, spec.model)
        self._sampling_params = partial(
            SamplingParams,
            output_kind=RequestOutputKind.DELTA,
            stop_token_ids=sorted(self._ends),
            skip_clone=True,
        )

    @property
    def alive(self) -> bool:
        """False once the engine has died or was shut down."""
        return not self._llm.errored

    async def bind(self) -> None:
        """Bind the engine's sockets to the running loop; all later calls belong to that loop."""
        await self._llm.get_supported_tasks()

    def shutdown(self, timeout: float) -> None:
        """Stop the engine's processes; blocks for up to `timeout` seconds."""
        self._llm.shutdown(timeout=timeout)
        # vLLM's finalizer calls this again, possibly during interpreter shutdown.
        self._llm.shutdown = lambda timeout=None: None

    def launch_info(self) -> Mapping[str, Any]:
        """Return the choices for this machine: `quantization`, `dtype`, `kv_dtype`, `device`; on a CPU also `threads`
        and `kv_cache_bytes`.
        """
        return self._launch.facts

    def stats(self) -> Mapping[str, Any]:
        """See :meth:`inference.engines.base.Engine.stats`.

        An idle scheduler reports nothing, so its last numbers count only while requests are open.
        """
        unfinished = self._llm.output_processor.get_num_unfinished_requests()
        return self._metrics.snapshot(unfinished)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """See :meth:`inference.engines.base.Engine.generate`.

        Raises:
            ValueError: vLLM refuses the request.
        """
        params = self._params(request)
        prompt = self._tokens_input(list(request.prompt_ids), cache_salt=request.cache_salt)
        if not prompt["prompt_token_ids"]:
            raise ValueError("the prompt is empty")
        repeated = repeated_text(self.tokenizer, request.prompt_ids)
        try:
            deadline = self._deadlines.of(prompt["prompt_token_ids"], request.priority)
            stream = self._llm.generate(prompt, params, request.request_id, priority=deadline)
            async with aclosing(stream):
                try:
                    async for output in stream:
                        delta = self._delta(output)
                        if repeated and delta.text:
                            delta.text, repeated = delta.text.removeprefix(repeated), ""
                        yield delta
                except (GeneratorExit, asyncio.CancelledError):
                    self._late.aborted()
                    raise
        except self._dead_errors as error:
            raise EngineDead(f"the {self.role} engine is gone") from error
        except self._lost_errors as error:
            if self._llm.errored:
                raise EngineDead(f"the {self.role} engine is gone") from error
            reason = _first_line(error.__cause__ or error)
            raise RuntimeError(f"the {self.role} engine lost a request: {reason}") from error
        except self._bad_request as error:
            raise ValueError(_first_line(error)) from error

    def _params(self, request: GenerationRequest) -> Any:
        if len(request.logit_bias) > MAX_LOGIT_BIASES:
            raise ValueError(f"{len(request.logit_bias)} token biases; an engine takes {MAX_LOGIT_BIASES}")
        wish = request.sampling
        try:
            return self._sampling_params(
                max_tokens=request.max_tokens,
                temperature=wish.temperature,
                top_p=wish.top_p,
                top_k=wish.top_k,
                min_p=wish.min_p,
                repetition_penalty=wish.repeat_penalty,
                presence_penalty=wish.presence_penalty,
                frequency_penalty=wish.frequency_penalty,
                logit_bias=dict(request.logit_bias) or None,
                logprobs=request.want_logprobs or None,
                structured_outputs=None if request.json_schema is None else self._structured(json=request.json_schema),
            )
        except self._bad_request as error:
            raise ValueError(_first_line(error)) from error

    def _delta(self, output: Any) -> Delta:
        said = output.outputs[0]
        ids = list(said.token_ids)
        if said.finish_reason == "stop" and ids and ids[-1] in self._ends:
            ids.pop()
        return Delta(
            text=said.text,
            token_ids=ids,
            finish_reason=_FINISH.get(said.finish_reason, said.finish_reason),
            prompt_tokens=len(output.prompt_token_ids or ()),
            cached_tokens=output.num_cached_tokens or 0,
            logprobs=[{token: lp.logprob for token, lp in step.items()} for step in said.logprobs or ()],
        )


class _Metrics:
    """Prometheus series of one engine in a registry of its own, and the scheduler's last report."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter

        self.registry = CollectorRegistry()
        self.tokens_after_cancel = Counter(
            "yap_tokens_after_cancel", "Tokens still generated for aborted requests", registry=self.registry
        )
        self._last: Any = None
        self._queries = self._hits = self._generated = 0

    def keep(self, scheduler: Any, iteration: Any) -> None:
        if iteration is not None:
            self._generated += iteration.num_generation_tokens
        if scheduler is None:
            return
        self._last = scheduler
        self._queries += scheduler.prefix_cache_stats.queries
        self._hits += scheduler.prefix_cache_stats.hits

    def snapshot(self, unfinished: int) -> dict[str, Any]:
        busy = self._last if unfinished else None
        waiting = min(busy.num_waiting_reqs + busy.num_skipped_waiting_reqs, unfinished) if busy else 0
        return {
            "running": unfinished - waiting,
            "waiting": waiting,
            "kv_usage": busy.kv_cache_usage if busy else 0.0,
            "prefix_hit_rate": self._hits / self._queries if self._queries else 0.0,
            "generated": self._generated,
        }


def _metrics_recorder() -> tuple[type[Any], _Metrics]:
    """Create a vLLM stat logger class for one engine. The logger never raises, because an exception ends the engine."""
    from prometheus_client import Counter, Gauge, Histogram
    from vllm.v1.metrics.loggers import PrometheusStatLogger

    metrics = _Metrics()

    class Recorder(PrometheusStatLogger):  # type: ignore[misc, unused-ignore]
        _gauge_cls = partial(Gauge, registry=metrics.registry)
        _counter_cls = partial(Counter, registry=metrics.registry)
        _histogram_cls = partial(Histogram, registry=metrics.registry)

        def record(self, scheduler_stats: Any, iteration_stats: Any, *args: Any, **kwargs: Any) -> None:
            try:
                metrics.keep(scheduler_stats, iteration_stats)
                # The readers of this step's text are scheduled; recording waits until they have run.
                write = partial(self._write, scheduler_stats, iteration_stats, *args, **kwargs)
                asyncio.get_running_loop().call_soon(write)
            except Exception:
                logger.exception("scheduler statistics could not be read")

        def _write(self, *args: Any, **kwargs: Any) -> None:
            try:
                super().record(*args, **kwargs)
            except Exception:
                logger.exception("engine statistics could not be recorded")

    return Recorder, metrics


@contextmanager
def lent_environment(environ: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the engine's child process and restore them afterwards.

    libgomp reads OMP_* once, when it is loaded; all imports happen before, so this process is not bound to the cores.
    """
    before = {name: os.environ.get(name) for name in (*_EDITED, *environ)}
    os.environ.update(environ)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _check_version(version: str) -> None:
    number = tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())
    if not TESTED[0] <= number <= TESTED[1]:
        low, high = (".".join(map(str, end)) for end in TESTED)
        logger.warning("vLLM %s: this server is tested with %s to %s", version, low, high)


def _first_line(error: BaseException) -> str:
    """Return the informative line of an error; pydantic writes it third."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = next((line for line in lines if line.startswith("Value error, ")), lines[0] if lines else repr(error))
    return line.removeprefix("Value error, ").partition(" [type=")[0]
