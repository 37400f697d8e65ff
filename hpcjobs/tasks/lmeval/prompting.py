"""lm_eval's prompting: few-shot examples, system message, chat template, and its seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hpcjobs.config import Config, GenerationConfig, TaskConfig
from hpcjobs.engines.loader import ModelSource
from hpcjobs.errors import ConfigError
from hpcjobs.tasks.lmeval.seeded import OTHER_SEED
from hpcjobs.tasks.lmeval.tasks import LoadedTask

# simple_evaluate's names for the most new tokens; the first that is set counts.
_MOST_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_MOST_TOKENS_DEFAULT = 256
# What narrows sampling, with its type.
_WARPS: Mapping[str, Callable[[Any], Any]] = {"top_k": int, "top_p": float, "min_p": float}
# The column of inputs/ for `group_by`, if a run has several tasks.
BY_TASK = ("task",)
_UNUSED = (
    "messages", "prompt", "target", "choices", "extract", "normalize", "repeats", "delimiter", "truncate", "cluster_by",
)  # fmt: skip


def check_task(task: TaskConfig) -> None:
    """Raise a ConfigError for config keys that an lm_eval task sets itself."""
    if not task.name:
        raise ConfigError("task.name is not set: the name of a task, group or tag of lm_eval")
    default = TaskConfig()
    used = [f"task.{name}" for name in _UNUSED if getattr(task, name) != getattr(default, name)]
    if used:
        raise ConfigError(f"{', '.join(used)}: an lm_eval task brings its own; leave it out")
    if task.group_by not in ((), BY_TASK):
        raise ConfigError("task.group_by: the samples of an lm_eval run are grouped by its tasks, if it has several")
    if task.few_shot.data is not None or task.few_shot.split is not None:
        raise ConfigError("task.few_shot: an lm_eval task has its own pool of examples; only k and seed can be set")


def set_few_shot(loaded: LoadedTask, task: TaskConfig) -> None:
    """Apply `task.few_shot` to the tasks by simple_evaluate's rule: a task that sets 0 keeps 0."""
    k = task.few_shot.k if "k" in task.few_shot.model_fields_set else None
    for one in loaded.tasks.values():
        own = one.get_config("num_fewshot")
        if k is not None and own != 0:
            one.set_config(key="num_fewshot", value=k)
        elif own is None:
            one.set_config(key="num_fewshot", value=0)
        one.set_fewshot_seed(seed=few_shot_seed(task))


def few_shot_seed(task: TaskConfig) -> int:
    """The seed for few-shot examples; simple_evaluate's default if none is set."""
    return task.few_shot.seed if "seed" in task.few_shot.model_fields_set else OTHER_SEED


def set_generation(loaded: LoadedTask, task: TaskConfig) -> None:
    """Apply the fields of `task.generation` that are set to the tasks."""
    changes = {name: getattr(task.generation, name) for name in task.generation.model_fields_set}
    names = {"max_new_tokens": "max_gen_toks", "stop": "until"}
    changes = {names.get(name, name): list(v) if isinstance(v, tuple) else v for name, v in changes.items()}
    if "temperature" in changes:
        changes["do_sample"] = changes["temperature"] > 0
    for one in loaded.tasks.values():
        if changes and one.OUTPUT_TYPE == "generate_until":
            own = dict(one.get_config("generation_kwargs") or {})
            if "max_gen_toks" in changes:
                own = {name: value for name, value in own.items() if name not in _MOST_TOKENS}
            one.set_config(key="generation_kwargs", value=own | changes)


def generation_of(kwargs: dict[str, Any]) -> GenerationConfig:
    """A request's generation arguments as a GenerationConfig, by the rules of lm_eval's `normalize_gen_kwargs`.

    Raises a ValueError for what the engines cannot do, such as beam search.
    """
    left = dict(kwargs)
    until = left.pop("until", None) or []
    given = [left.pop(name, None) for name in _MOST_TOKENS]
    most = next((int(value) for value in given if value is not None), _MOST_TOKENS_DEFAULT)
    temperature, sample = float(left.pop("temperature", 0.0) or 0.0), left.pop("do_sample", None)
    temperature = 0.0 if sample is False else temperature
    penalty = left.pop("repetition_penalty", None)
    neutral: dict[str, Any] = {"num_beams": 1, "length_penalty": 1.0, "num_return_sequences": 1}
    given_warps = {name: left.pop(name, None) for name in _WARPS}
    warps = {name: _WARPS[name](value) for name, value in given_warps.items() if temperature and value is not None}
    if not temperature:
        neutral |= {"typical_p": left.get("typical_p")}  # greedy
    for name, value in left.items():
        if name not in neutral or value != neutral[name]:
            raise ValueError(f"generation_kwargs.{name}: {value!r} is nothing that hpcjobs' engines do")
    stop = tuple(text for text in ([until] if isinstance(until, str) else until) if text)
    penalty = None if penalty is None else float(penalty)
    return GenerationConfig(
        max_new_tokens=most, temperature=temperature, stop=stop, repetition_penalty=penalty, **warps
    )


def request_options(config: Config) -> dict[str, object]:
    """Arguments of `build_all_requests`: system message and chat template, as simple_evaluate passes them."""
    task = config.task
    options: dict[str, Any] = {"system_instruction": task.description, "fewshot_as_multiturn": True}
    if task.chat_template:
        options |= {"apply_chat_template": True, "chat_template": _Template(config).render}
    return options


class _Template:
    """The model's own chat template, used as lm_eval's HFLM uses it."""

    def __init__(self, config: Config) -> None:
        from transformers import AutoTokenizer

        model = config.model
        if model.engine == "dummy" or not model.name:
            raise ConfigError("task.chat_template: the model has no tokenizer, so it has no chat template")
        place = ModelSource(model.name).location
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(
                place, revision=model.revision, trust_remote_code=model.trust_remote_code
            )
        except (OSError, ValueError) as error:
            raise ConfigError(f"task.chat_template: no tokenizer of {model.name!r}: {error}") from None
        if not self._tokenizer.chat_template:
            raise ConfigError(f"task.chat_template: the tokenizer of {model.name!r} has none")

    def render(self, chat: Sequence[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The chat as the model's text; without its system turn where the template takes none."""
        import jinja2

        try:
            return self._render(chat, add_generation_prompt)
        except jinja2.TemplateError:
            return self._render([turn for turn in chat if turn["role"] != "system"], add_generation_prompt)

    def _render(self, chat: Sequence[dict[str, str]], add_generation_prompt: bool) -> str:
        text: str = self._tokenizer.apply_chat_template(
            list(chat), tokenize=False, add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )  # fmt: skip
        return text
