"""Rows to examples: the context, and what is trained on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hpcjobs.config import TaskConfig
from hpcjobs.errors import ConfigError
from hpcjobs.requests import Chat, Prompt, Row, turns_like
from hpcjobs.run_folder.inputs import user_row
from hpcjobs.tasks.chats import chat_or_text, prompt_of
from hpcjobs.tasks.prompts import Prompts, first_answer


@dataclass(frozen=True)
class Example:
    """A context and its completion, both texts or both chats. Of a chat only the assistant's turns are trained on."""

    context: Prompt
    completion: Prompt


def turns_of(example: Example) -> Chat:
    """All turns of an example whose context and completion are chats."""
    context, completion = example.context, example.completion
    assert not isinstance(context, str)
    assert not isinstance(completion, str)
    return turns_like(context, [*context, *completion])


class Examples:
    """The examples of rows with the given columns.

    With `task.messages` or `task.prompt` the answer is `task.target`; after a text it is preceded by `task.delimiter`,
    as in a few-shot example. Without them a row has a chat in `messages`, or `prompt` and `completion`, both texts or
    both chats. `prompts`: those templates, None without any. Raises a ConfigError if there is nothing to train on.
    """

    def __init__(self, task: TaskConfig, columns: Iterable[str]) -> None:
        columns = list(columns)
        self.prompts: Prompts | None = None
        self._delimiter = " " if task.delimiter is None else task.delimiter
        if task.type != "generate" or task.few_shot.k or task.repeats > 1:
            raise ConfigError("submit train learns answers: task.type is generate, without few_shot and repeats")
        if task.prompt is not None or task.messages:
            if task.target is None:
                raise ConfigError("task.target is not set: it is what the model learns to answer")
            self.prompts = Prompts(task, columns)
        elif "messages" not in columns and not {"prompt", "completion"} <= set(columns):
            raise ConfigError(
                "nothing to learn: set task.messages or task.prompt, and task.target; or bring a column 'messages', or "
                f"'prompt' and 'completion'; columns: {', '.join(columns) or 'none'}"
            )

    def example(self, row: Row) -> Example:
        """The example of a row. Raises what its templates raise, and a ValueError if it cannot be trained on."""
        values = user_row(row)
        if self.prompts is None:
            return _of_columns(values)
        answer = first_answer(self.prompts.target(values))
        if answer is None:
            raise ValueError("the row has no answer: task.target gives nothing")
        context = self.prompts.prompt(values)
        if isinstance(context, str):
            return Example(context, f"{self._delimiter}{answer}")
        return Example(context, [{"role": "assistant", "content": str(answer)}])


def _of_columns(row: Row) -> Example:
    if row.get("messages") is not None:
        chat = prompt_of(row, "messages")
        if isinstance(chat, str):
            raise ValueError("column 'messages' has a text, not a chat")
        return Example(turns_like(chat, []), chat)
    if "prompt" not in row:
        raise ValueError("column 'messages' is null")
    context, completion = prompt_of(row, "prompt"), chat_or_text(row["completion"], "completion")
    if isinstance(context, str) != isinstance(completion, str):
        raise ValueError("of 'prompt' and 'completion' one is a chat and the other a text")
    return Example(context, completion)
