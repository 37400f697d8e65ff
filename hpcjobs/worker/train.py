"""train on a rank: tokenise once, run the training loop, export the model."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from hpcjobs.run_folder.files import sha256_of
from hpcjobs.run_folder.inputs import Inputs
from hpcjobs.run_folder.journal.journal import Journal
from hpcjobs.run_folder.rank_state import RankState
from hpcjobs.training.batches import plan_batches
from hpcjobs.training.data.order import BatchOrder, Ordering
from hpcjobs.training.data.tokens import TokenFacts, TokenFile, wait_for_tokens, whole_tokens, write_tokens
from hpcjobs.training.export import export

if TYPE_CHECKING:
    from hpcjobs.distributed.work import Work
    from hpcjobs.training.loop import Loop, Schedule

log = logging.getLogger(__name__)


def run_train(work: Work) -> None:
    """Run this rank's share of a train run. The ranks run in step: if one is lost, the others end and name it."""
    from hpcjobs.training.peers import Peers

    work.heartbeat.enter(RankState.LOADING)
    run, batches = work.config.run, plan_batches(work.config.train, work.rank.world_size)
    if work.rank.is_main:
        log.info("a global batch of %d: %s", work.config.train.global_batch, batches)
    loop: Loop | None = None
    try:
        with Peers(
            work.paths, work.rank, run.lease_timeout, work.heartbeat, run.heartbeat, run.rendezvous_timeout
        ) as peers:
            facts = make_tokens(work) if work.rank.is_main else _awaited(work)
            try:
                loop = _prepared(work, facts)
                _train(work, loop)
            except RuntimeError as error:  # torch's errors of a broken group are that
                if work.rank.world_size > 1 and (lost := peers.blame(error, loop.done if loop else 0)):
                    raise lost from error
                raise
    finally:  # nobody is watched any more: a checkpoint that is being written is finished, be others lost
        if loop:
            loop.close()
    stopped = work.drain.reason and loop.done < facts.steps
    log.info("%s after step %d of %d", f"drained, {work.drain.reason}," if stopped else "done", loop.done, facts.steps)


def make_tokens(work: Work) -> TokenFacts:
    """Rank 0: tokenise the rows, unless an earlier start did and its files are whole; returns the counts."""
    if facts := whole_tokens(work.paths, work.rank.attempt):
        return facts
    from hpcjobs.engines.loader import ModelSource, load_tokenizer, most_positions, vocabulary_size
    from hpcjobs.training.data.encode import Encoder
    from hpcjobs.training.data.examples import Examples
    from hpcjobs.training.data.validation_rows import validation_rows

    config, began, paths = work.config, time.monotonic(), work.paths
    train, model, inputs = config.train, config.model, Inputs(work.paths.data)
    source = ModelSource.of(model)
    longest = min(train.max_length, most_positions(source) or train.max_length)
    encoder = Encoder(load_tokenizer(source), longest, vocabulary_size(source))
    examples = Examples(config.task, inputs.columns)
    held_out = validation_rows(inputs.ids(0, len(inputs)), train.validation_fraction, config.run.seed)
    made = write_tokens(
        inputs, lambda row: encoder.encode(examples.example(row)), paths.tokens, lambda n: n not in held_out
    )
    validation = None
    if held_out or paths.validation_data.exists():
        other = inputs if held_out else Inputs(paths.validation_data)
        theirs = Examples(config.task, other.columns)
        validation = write_tokens(
            other, lambda row: encoder.encode(theirs.example(row)), paths.validation_tokens,
            lambda n: not held_out or n in held_out,
        )  # fmt: skip
    order = make_order(work, TokenFile(paths.tokens), longest)
    steps = train.max_steps or order.steps(train.epochs or 1.0)
    files = [paths.tokens] + ([paths.validation_tokens] if validation else [])
    hashes = {path.name: sha256_of(path) for path in files}
    if (former := TokenFacts.known(paths)) and former.files not in ({}, hashes):
        log.warning("the tokens are not those of an earlier start: a library that makes them is another one")
    facts = TokenFacts(
        train=made, validation=validation, steps=steps, units=len(order.units), longest=longest, files=hashes,
        attempt=work.rank.attempt,
    )  # fmt: skip
    facts.write(paths.token_facts)
    log.info("%d samples, %d tokens in %.1f s", made.samples, made.tokens, time.monotonic() - began)
    for warning in facts.warnings():
        log.warning("%s", warning)
    return facts


def make_order(work: Work, tokens: TokenFile, longest: int, border: int | None = None) -> BatchOrder:
    """The sequence of global batches of this run; `border` is that of the model's positions."""
    train = work.config.train
    pack = longest if train.packing else None
    how = Ordering(work.config.run.seed, train.global_batch, pack, train.group_by_length, border)
    return BatchOrder(tokens.lengths, how)


def _awaited(work: Work) -> TokenFacts:
    return wait_for_tokens(work.paths, work.rank.attempt, work.config.run.progress_timeout)


def _prepared(work: Work, facts: TokenFacts) -> Loop:
    """The training loop, set up but not resumed."""
    from hpcjobs.engines.lengths import position_border
    from hpcjobs.training.loop import Loop, Schedule
    from hpcjobs.training.setup import prepare
    from hpcjobs.training.validation import Validation

    tokens = TokenFile(work.paths.tokens)
    batches = plan_batches(work.config.train, work.rank.world_size)
    prepared = prepare(work, facts)
    border = position_border(prepared.state.plain)
    schedule: Schedule = Schedule(tokens, make_order(work, tokens, facts.longest, border), facts.steps, batches)
    work.heartbeat.vitals.device = str(prepared.connector.state.device)
    validation = None
    if facts.validation:
        pad = prepared.connector.tokenizer.pad_token_id or 0
        validation = Validation(TokenFile(work.paths.validation_tokens), batches, work.rank.rank, pad, border)
    return Loop(work, prepared, schedule, Journal(work.paths.journal(work.rank.attempt, work.rank.rank)), validation)


def _train(work: Work, loop: Loop) -> None:
    loop.resume()
    work.heartbeat.vitals.ready_at = time.time()
    work.heartbeat.enter(RankState.WORKING)
    work.drain.engaged = True
    try:
        if loop.run():
            work.heartbeat.enter(RankState.SAVING)
            loop.take_best()
            export(work, loop.prepared)
        else:
            work.heartbeat.vitals.ended = f"drained: {work.drain.reason or 'another rank has no time left'}"
    finally:
        work.drain.engaged = False
