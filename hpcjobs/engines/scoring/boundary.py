"""Split contexts and continuations into the tokens to score.

The rules are lm-evaluation-harness's, so that scores can be equal (its `TemplateLM._encode_pair` and `loglikelihood`,
`HFLM.tok_encode`, and `utils.get_rolling_token_windows`; version 0.4.13, MIT License).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hpcjobs.engines.chat_template import chat_text
from hpcjobs.engines.scoring.spans import Span
from hpcjobs.engines.vocabulary import check_tokens
from hpcjobs.requests import Pair, Prompt, Request

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class SpanBuilder:
    """Makes spans of at most `longest` input tokens from requests; longer ones are cut on the left, or refused.

    `known` is the number of tokens that the model has embeddings for.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, longest: int, known: int | None = None) -> None:
        self._tokenizer, self._longest, self._known = tokenizer, longest, known
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        self._prefix: int | None = eos if bos is None else bos
        self._prefix_text = tokenizer.decode([self._prefix]) if self._prefix is not None else None
        self._contexts: dict[str, list[int]] = {}

    def spans(self, request: Request) -> list[Span]:
        """The spans of a request: one per pair, or the windows of a perplexity text. Raises a ValueError."""
        if request.task == "perplexity":
            return self.windows(_plain(request.prompt), nothing=request.truncate == "left")
        if not request.pairs:
            raise ValueError("there are no options")
        self._contexts = {}  # the options of one question share theirs
        pairs = [self.pair(pair) for pair in request.pairs]
        if request.truncate == "error":
            self._check(pairs)
        return [self._cut(span) for span in pairs]

    def pair(self, pair: Pair) -> Span:
        """The span of one pair, however long.

        Whitespace at the end of the context moves to the continuation, where words begin with it.
        """
        context, special = self._context(pair.context)
        continuation = pair.continuation
        if not context:
            ids = self._encode(continuation, special=False)
            if not ids:
                raise ValueError(f"continuation {continuation!r} has no tokens")
            lead = self._lead()
            return self._span(*(([lead], ids) if ids[0] != lead else (ids[:1], ids[1:])))
        bare = context.rstrip()
        if bare != context and (bare or self._encode("", special)):  # or nothing would be left to condition on
            continuation, context = context[len(bare) :] + continuation, bare
        if context not in self._contexts:
            self._contexts[context] = self._encode(context, special)
        head = self._contexts[context]
        if not head:
            raise ValueError(f"context {pair.context!r} has no tokens")
        return self._span(head, self._encode(context + continuation, special)[len(head) :])

    def windows(self, text: str, nothing: bool = False) -> list[Span]:
        """Spans that score each token of a text once; the first token is conditioned on the prefix token only.

        Each later window has as much context as the model's context length allows. `nothing`: a text may have no
        tokens, and has no windows then.
        """
        ids = self._encode(text)
        if not ids and not nothing:
            raise ValueError("the text has no tokens")
        tokens, end, spans = (self._lead(), *ids) if ids else (), 0, list[Span]()
        while end < len(ids):
            begin, end = end, min(len(ids), end + self._longest)
            spans.append(Span(tokens[max(0, end - self._longest) : end + 1], end - begin))
        return spans

    def _span(self, context: Sequence[int], continuation: Sequence[int]) -> Span:
        if not continuation:
            raise ValueError("the continuation has no tokens of its own")
        if len(continuation) > self._longest:
            raise ValueError(f"continuation of {len(continuation)} tokens is longer than {self._longest} positions")
        return Span((*context, *continuation), len(continuation))

    def _check(self, spans: Sequence[Span]) -> None:
        most = max(len(span.inputs) for span in spans)
        if most > self._longest:
            raise ValueError(f"prompt and option have {most} tokens, and the model {self._longest} positions")

    def _cut(self, span: Span) -> Span:
        return Span(span.ids[-(self._longest + 1) :], span.scored)

    def _context(self, prompt: Prompt) -> tuple[str, bool | None]:
        """A context as text, and whether to add special tokens; a chat template adds its own."""
        if isinstance(prompt, str):
            return prompt, None
        return chat_text(self._tokenizer, prompt, ask=True), False

    def _encode(self, text: str, special: bool | None = None) -> list[int]:
        """Token ids. Special tokens are added as the tokenizer does by default (None), but the first one never twice.
        """
        if special is None and self._prefix_text and text.startswith(self._prefix_text):
            special = False
        how = {} if special is None else {"add_special_tokens": special}
        ids: list[int] = self._tokenizer(text, **how).input_ids
        check_tokens(ids, self._known, self._tokenizer)
        return ids

    def _lead(self) -> int:
        if self._prefix is None:
            raise ValueError("the tokenizer has neither a first nor a last token to put before the text")
        return self._prefix


def _plain(prompt: Prompt) -> str:
    if not isinstance(prompt, str):
        raise ValueError("the perplexity of a chat is not defined: give a text")
    return prompt
