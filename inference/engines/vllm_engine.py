"""vLLM behind the engine protocol, for versions 0.26 to 0.32.

vLLM is imported when an engine is built, never before. One difference between the versions matters here: 0.32 raises
``VLLMClientError`` for a bad request, earlier versions raise ``ValueError``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import fields, replace
from functools import cache, partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from inference.engines import model_config
from inference.engines.arguments import LaunchPlan, plan
from inference.engines.base import Delta, EngineDead, EngineRole, GenerationRequest, SchemaRefused
from inference.engines.deadlines import DeadlinePriorities
from inference.engines.device import Device, probe
from inference.engines.engine_args import checked_engine_args
from inference.engines.engine_metrics import stat_logger
from inference.engines.spec import EngineSpec, ModelRefused
from inference.engines.supervisor import temporary_environment
from inference.engines.tokenizer import end_token_ids, read_tokenizer, repeated_text

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

TESTED = ((0, 26), (0, 32))
# The GPU sampler has room for this many biases of a request; one more ends the engine
# (vllm/v1/worker/gpu/sample/logit_bias.py, MAX_NUM_LOGIT_BIAS_TOKENS).
MAX_LOGIT_BIASES = 1024
_FINISH = {"repetition": "stop"}
# Variables that vLLM changes in this process while it builds (vllm/platforms/cpu.py); they are restored afterwards.
_EDITED = ("LD_PRELOAD", "LOCAL_WORLD_SIZE", "NUMEXPR_MAX_THREADS")


@cache
def this_device() -> Device:
    """Return the machine as it was before the first engine was built."""
    return probe(os.environ.get("CUDA_VISIBLE_DEVICES"))


def build(spec: EngineSpec) -> VllmEngine:
    """Build one engine. Blocks for seconds to minutes, so an event loop must not call this function.

    Raises:
        ModelRefused: the engine cannot run on this machine.
        Exception: what vLLM raises where its engine process does not start.
    """
    device = this_device()
    launch = plan(spec, device, model_config.read(spec.model))
    loaded = read_tokenizer(spec.model, spec.chat_template)
    os.environ.update(launch.environ)
    import vllm

    _check_version(vllm.__version__)
    with _environment_cached_afterwards():
        if not loaded.repaired:
            return VllmEngine(spec, launch, loaded.tokenizer)
        # vLLM loads the tokenizer again, in this process and in the engine's, while the constructor runs.
        with TemporaryDirectory(prefix="yap-tokenizer-") as folder:
            loaded.save(folder)
            launch = replace(launch, arguments={**launch.arguments, "tokenizer": folder})
            return VllmEngine(spec, launch, loaded.tokenizer)


@contextmanager
def _environment_cached_afterwards() -> Iterator[None]:
    """Let vLLM read the environment inside of this context and cache the variables after it.

    vLLM reads variables for every token of every request (vllm/envs.py), which takes about 4 % of this process's time.
    """
    from vllm import envs

    if not hasattr(envs, "disable_envs_cache"):
        yield
        return
    envs.disable_envs_cache()  # the variables differ from engine to engine
    try:
        yield
    finally:
        envs.enable_envs_cache()


class VllmEngine:
    """One ``AsyncLLM``. A thread builds the object; :meth:`bind` binds it to the serving loop."""

    def __init__(self, spec: EngineSpec, launch: LaunchPlan, tokenizer: PreTrainedTokenizerBase) -> None:
        from vllm import exceptions
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError
        from vllm.v1.metrics.loggers import PrometheusStatLogger

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
        logger_class, self._metrics = stat_logger(PrometheusStatLogger)
        self.registry: CollectorRegistry = self._metrics.registry
        # All imports come before: libgomp reads OMP_* once, when it is loaded, and would bind this thread, too.
        with temporary_environment(launch.process_environ, keep=_EDITED):
            try:
                known = {field.name for field in fields(AsyncEngineArgs)}
                args = AsyncEngineArgs(**{**launch.arguments, **checked_engine_args(spec, known)})
                config = args.create_engine_config(UsageContext.ENGINE_CONTEXT)
            except (ValueError, TypeError, NotImplementedError) as error:
                raise ModelRefused(f"{spec.role} model {spec.model}: {_first_line(error)}") from error
            self._llm = AsyncLLM.from_vllm_config(
                config,
                usage_context=UsageContext.ENGINE_CONTEXT,
                stat_loggers=[logger_class],
                enable_log_requests=False,
            )
        self._deadlines = DeadlinePriorities()
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
        """Bind the engine's sockets to the running loop; every later call must come from this loop."""
        await self._llm.get_supported_tasks()

    def shutdown(self, timeout: float) -> None:
        """End the engine's processes; blocks for up to ``timeout`` seconds."""
        self._llm.shutdown(timeout=timeout)
        # AsyncLLM's finalizer calls shutdown again, when the interpreter may already have unloaded vLLM.
        self._llm.shutdown = lambda timeout=None: None

    def launch_info(self) -> Mapping[str, Any]:
        """Return what was chosen for this machine: ``quantization``, ``dtype``, ``kv_dtype``, ``device``; on a CPU
        ``threads`` and ``kv_cache_bytes``; with several GPUs ``gpus``, ``tensor_parallel`` and the like."""
        return self._launch.facts

    def stats(self) -> Mapping[str, Any]:
        """See :meth:`inference.engines.base.Engine.stats`."""
        return self._metrics.snapshot(self._llm.output_processor.get_num_unfinished_requests())

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """See :meth:`inference.engines.base.Engine.generate`."""
        params = self._params(request)
        prompt = self._tokens_input(list(request.prompt_ids), cache_salt=request.cache_salt)
        if not prompt["prompt_token_ids"]:
            raise ValueError("the prompt is empty")
        repeated = repeated_text(self.tokenizer, request.prompt_ids)
        try:
            deadline = self._deadlines.deadline_ms(prompt["prompt_token_ids"], request.priority, request.cache_salt)
            stream = self._llm.generate(prompt, params, request.request_id, priority=deadline)
            async with aclosing(stream):
                async for output in stream:
                    delta = self._delta(output)
                    if repeated and delta.text:
                        delta.text, repeated = delta.text.removeprefix(repeated), ""
                    yield delta
        except self._dead_errors as error:
            raise EngineDead(f"the {self.role} engine died") from error
        except self._lost_errors as error:
            if self._llm.errored:
                raise EngineDead(f"the {self.role} engine died") from error
            reason = _first_line(error.__cause__ or error)
            raise RuntimeError(f"the {self.role} engine lost a request: {reason}") from error
        except self._bad_request as error:
            refused = SchemaRefused if request.json_schema is not None else ValueError
            raise refused(_first_line(error)) from error

    def _params(self, request: GenerationRequest) -> Any:
        if len(request.logit_bias) > MAX_LOGIT_BIASES:
            raise ValueError(f"{len(request.logit_bias)} token biases; an engine takes {MAX_LOGIT_BIASES}")
        sampling = request.sampling
        try:
            return self._sampling_params(
                max_tokens=request.max_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                min_p=sampling.min_p,
                repetition_penalty=sampling.repeat_penalty,
                presence_penalty=sampling.presence_penalty,
                frequency_penalty=sampling.frequency_penalty,
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


def _check_version(version: str) -> None:
    number = tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())
    if not TESTED[0] <= number <= TESTED[1]:
        low, high = (".".join(map(str, end)) for end in TESTED)
        logger.warning("vLLM %s: this server is tested with %s to %s", version, low, high)


def _first_line(error: BaseException) -> str:
    """Return the line of an error that names the problem; pydantic puts this line third."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    found = next((line for line in lines if line.startswith("Value error, ")), lines[0] if lines else repr(error))
    return found.removeprefix("Value error, ").partition(" [type=")[0]
