"""simple_evaluate's seeds."""

from __future__ import annotations

import inspect
import random

import numpy as np

from hpcjobs.tasks.lmeval.seeded import OTHER_SEED, seeded


def test_they_are_simple_evaluates_and_leave_the_generators_as_they_were() -> None:
    import lm_eval

    defaults = inspect.signature(lm_eval.simple_evaluate).parameters
    random.seed(5)
    np.random.seed(5)
    before = random.getstate()
    with seeded():
        drawn = random.random(), np.random.random()
    assert random.getstate() == before
    random.seed(defaults["random_seed"].default)
    np.random.seed(defaults["numpy_random_seed"].default)
    assert drawn == (random.random(), np.random.random())
    assert defaults["fewshot_random_seed"].default == OTHER_SEED
