"""The first prompt of a run as its model will get it, shown before anything is queued."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from hpcjobs.config import Config
from hpcjobs.engines.generation_keys import generation_values
from hpcjobs.metrics import Judge
from hpcjobs.metrics.registry import BUILT_IN
from hpcjobs.plan.chat_template import special_tokens
from hpcjobs.plan.model import model_folder
from hpcjobs.plan.prompt_tokens import prompt_tokens
from hpcjobs.requests import Completion, Prompt, Request, Row, Target
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.inputs import user_row
from hpcjobs.tasks.prompts import first_answer

# Of longer prompts beginning and end are shown, and of longer targets the beginning (characters).
_MOST, _MOST_TARGET = 1600, 200


@dataclass(frozen=True, kw_only=True)
class FirstPrompt:
    """The first row's prompt: its text by the chat template, `tokens` if the tokenizer is here, what ends an answer.

    `target` is as the templates give it; `score` is that of the target itself by the first metric, `metric`, where that
    compares answers with it: one that is not the best is mostly a mistake in target, extract or normalize.
    """

    id: str
    text: str
    tokens: int | None
    ends: tuple[str, ...] = ()
    target: Target = None
    metric: str | None = None
    score: float | None = None

    def lines(self) -> list[str]:
        """The prompt for people, in a few lines."""
        known = f"{self.tokens} tokens" if self.tokens is not None else f"{len(self.text)} characters"
        ends = f"; {' or '.join(self.ends)} ends an answer" if self.ends else ""
        lines = [f"# first prompt (id {self.id!r}): {known}{ends}", _cut(self.text)]
        if self.target is not None:
            score = "" if self.score is None else f"; as an answer it has {self.metric} {self.score:.4f}"
            shown = json.dumps(self.target, ensure_ascii=False)
            lines.append(f"# target: {shown if len(shown) <= _MOST_TARGET else f'{shown[:_MOST_TARGET]}...'}{score}")
        return lines


def first_prompt(config: Config, request: Request, row: Row, target: Target) -> FirstPrompt | None:
    """What is to be shown of the first row. None if its chat cannot be rendered, which is told elsewhere."""
    folder = None if config.model.engine == "dummy" else model_folder(config)  # that one has no template
    ends = tuple[str, ...]()
    tokens = None
    if folder is None or not (folder / "tokenizer.json").is_file():
        text = _plain(request.prompt)
    else:
        known = prompt_tokens(folder)
        try:
            text, special = known.text(request.prompt)
        except Exception:  # a template may raise anything
            return None
        tokens = known.count(text, special)
        if request.task == "generate":
            stops = (request.generation or config.task.generation).stop
            ends = (*(known.name(token) for token in end_tokens(folder)), *map(repr, stops))
    metric, score = _own_score(config, target, row) if request.task == "generate" else (None, None)
    return FirstPrompt(
        id=request.id, text=text, tokens=tokens, ends=ends, target=_shown(request, target), metric=metric, score=score
    )


def end_tokens(folder: Path) -> list[int]:
    """The end tokens as `engines.end_tokens` has them, from the model's files: config, generation config, tokenizer."""
    config, (_, generation) = read_json(folder / "config.json"), generation_values(folder)
    named = [generation.get("eos_token_id"), config.get("text_config", config).get("eos_token_id")]
    if (text := special_tokens(folder).get("eos_token")) is not None:
        named.append(prompt_tokens(folder).number(text))
    lists = [one if isinstance(one, list) else [one] for one in named]
    return list(dict.fromkeys(int(token) for tokens in lists for token in tokens if token is not None))


def _own_score(config: Config, target: Target, row: Row) -> tuple[str | None, float | None]:
    """The first metric and its score of the right answer; only of our own metrics, which cost nothing."""
    first = first_answer(target)
    if not config.task.metrics or config.task.type == "lm_eval" or first is None:
        return None, None
    judge = Judge(config.task)
    metric = judge.metrics[0]
    if metric.name.partition("(")[0] not in BUILT_IN or not metric.needs_target:
        return None, None
    texts = (str(first),) * config.task.repeats
    score = judge.judge(Completion(index=0, text=texts[0], finish_reason="stop", texts=texts), target, user_row(row))
    return metric.name, None if score[metric.name].error else score[metric.name].value


def _shown(request: Request, target: Target) -> Target:
    """The target for people: of options their texts, of a perplexity none, which is the text itself."""
    if request.task == "perplexity":
        return None
    if isinstance(target, int):
        return request.options[target]
    if isinstance(target, list):
        return [request.options[one] if isinstance(one, int) else one for one in target]
    return target


def _plain(prompt: Prompt) -> str:
    """A prompt without a model's template."""
    return prompt if isinstance(prompt, str) else "\n".join(f"{turn['role']}: {turn.get('content')}" for turn in prompt)


def _cut(text: str) -> str:
    if len(text) <= _MOST:
        return text
    half = _MOST // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} characters ...]\n{text[-half:]}"
