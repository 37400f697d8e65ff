"""An lm_eval task on two ranks of a real cluster: what `lm_eval --model hf` alone says of the same model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.assets import ASSETS
from tests.lmeval_tasks import alone, write_tasks
from tests.slurm.site import Site
from tests.tasks.lmeval.test_run import same_samples, same_values

# The tiny model has learned to answer chats: some of its answers are right, and some are wrong.
CHATS = {"spell"}


@pytest.fixture(scope="module")
def hf() -> Any:
    """The tiny model as lm_eval's own HFLM, in fp32."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(str(ASSETS / "tiny"), device="cpu", dtype="float32", batch_size=4)


def submitted(site: Site, name: str, tasks: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows and metrics of the task after a job of two ranks on two nodes."""
    task = {"type": "lm_eval", "name": name, "include_path": str(tasks), "chat_template": name in CHATS}
    config = {"model": {"name": "tiny", "dtype": "float32"}, "task": task}
    (site.folder / "task.yaml").write_text(json.dumps(config))  # JSON is YAML
    shape = ("--nodes", "2", "--ntasks-per-node", "1", "--gpus", "0")
    site.hpcjobs("submit", "eval", "--config", "task.yaml", *shape, "--name", name, "--wait")
    assert len(site.paths(name).journals()) == 2
    metrics = site.metrics(name)
    assert metrics["complete"] is True
    return site.rows(name), metrics["metrics"]


@pytest.mark.model
@pytest.mark.parametrize("name", ["pick", "spell", "blank"])
def test_two_ranks_give_what_lm_eval_alone_gives(site: Site, hf: Any, name: str) -> None:
    tasks = write_tasks(site.folder / "tasks")
    theirs = alone(hf, name, tasks, bootstrap_iters=1000, apply_chat_template=name in CHATS)
    rows, ours = submitted(site, name, tasks)
    logged = theirs["samples"][name]
    assert {row["id"] for row in rows} == {str(sample["doc_id"]) for sample in logged}
    exact = {"acc", "acc_norm", "acc_mutual_info", "exact_match"}  # the rest is made of log-likelihoods' last bits
    for sample in logged:
        sample["metrics"] = [metric for metric in sample["metrics"] if metric in exact]
    assert same_samples(rows, {name: logged}) >= len(rows)
    results = theirs["results"][name]
    if name == "spell":
        assert 0 < results["exact_match,strict-match"] < 1
    assert same_values(ours, {key: value for key, value in results.items() if key.partition(",")[0] in exact | ERRORS})
    by_id = {row["id"]: row for row in rows}
    for sample in logged:
        row = by_id[str(sample["doc_id"])]
        if name == "spell":
            assert row["completion"] == sample["resps"][0][0]
            assert row["statistics"][f"bleu,{sample['filter']}"]
        else:
            assert row["choice_logprobs"] == pytest.approx([one[0][0] for one in sample["resps"]], abs=1e-4)
            assert row["choice_greedy"] == [one[0][1] for one in sample["resps"]]


ERRORS = {f"{metric}_stderr" for metric in ("acc", "acc_norm", "acc_mutual_info", "exact_match")}


@pytest.mark.model
def test_a_text_of_many_windows_has_lm_evals_perplexity(site: Site, hf: Any) -> None:
    tasks = write_tasks(site.folder / "tasks", rows=6)
    text = (tasks / "read.yaml").read_text().replace("{{word}} {{tail}} {{word}}", "{{(word ~ ' ' ~ tail ~ ' ') * 40}}")
    (tasks / "read.yaml").write_text(text)
    theirs = alone(hf, "read", tasks, bootstrap_iters=0)["results"]["read"]
    rows, ours = submitted(site, "read", tasks)
    assert max(row["choice_tokens"][0] for row in rows) > 300  # more than tiny's 256 positions
    for name in ("word_perplexity,none", "byte_perplexity,none", "bits_per_byte,none"):
        assert ours[name]["value"] == pytest.approx(theirs[name], rel=1e-5)
