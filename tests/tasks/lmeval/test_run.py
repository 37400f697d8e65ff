"""Tasks of lm_eval through hpcjobs: what lm_eval alone says, sample by sample and in sum."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpcjobs.config import Config
from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.config.resolve import read_config
from hpcjobs.errors import ConfigError
from hpcjobs.merge.eval import merge
from hpcjobs.plan.eval import make_plan
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.tasks.lmeval.codec import decode
from tests.lmeval_tasks import alone, dummy_lm, write_tasks
from tests.runs import Ranks


def config_of(folder: Path, name: str, model: str = "", **task: Any) -> Config:
    values: dict[str, Any] = {
        "model": {"engine": "dummy"} if not model else {"name": model},
        "task": {"type": "lm_eval", "name": name, "include_path": str(folder), **task},
        "run": {"heartbeat": 0.2},
        "cluster": {"executor": "local"},
    }
    return validate(Layer(values))


def planned(tmp_path: Path, name: str, **task: Any) -> RunPaths:
    """The planned run of a task; the folder that the task came from is gone."""
    folder = write_tasks(tmp_path / "tasks")
    draft = make_plan("eval", config_of(folder, name, **task), tmp_path / "run")
    draft.write()
    return draft.paths


def run_through(paths: RunPaths, world: int = 2) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of the results and the metrics after a run on `world` ranks."""
    with Ranks(paths, world) as ranks:
        ranks.start(*range(world))
        assert ranks.finish(*range(world)) == [0] * world
    assert merge(paths).complete
    values: dict[str, Any] = json.loads(paths.metrics.read_text())
    return pq.read_table(paths.results).to_pylist(), values["metrics"] | values.get("groups", {})


def same_samples(rows: list[dict[str, Any]], samples: dict[str, list[dict[str, Any]]]) -> int:
    """Assert that every number that lm_eval logged of a sample is that row's score; how many there were."""
    seen = 0
    by_id = {(row["input"]["task"], row["id"].rpartition(":")[2]): row for row in rows}
    for task, logged in samples.items():
        for sample in logged:
            row = by_id[task, str(sample["doc_id"])]
            assert row["error"] is None
            for metric in sample["metrics"]:
                if isinstance(sample[metric], int | float):
                    assert row["scores"][f"{metric},{sample['filter']}"] == sample[metric], (task, metric, row)
                    seen += 1
    return seen


def same_values(ours: dict[str, Any], theirs: dict[str, Any]) -> set[str]:
    """Assert that lm_eval's numbers of a task are the run's; their names."""
    names = {name for name in theirs if "," in name and "_stderr" not in name}
    for name in names:
        metric, _, one = name.partition(",")
        assert ours[name]["value"] == theirs[name], name
        stderr = theirs[f"{metric}_stderr,{one}"]
        assert ours[name]["stderr"] == (None if stderr == "N/A" else stderr), name
    return names


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")  # for lm_eval alone, which bootstraps in a process a core


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("pick", {"acc,none", "acc_norm,none", "acc_mutual_info,none", "brier_score,none", "mcc,none"}),
        ("spell", {f"{m},{f}" for m in ("exact_match", "bleu") for f in ("strict-match", "flexible-extract")}),
        ("blank", {"acc,none"}),
        ("read", {"word_perplexity,none", "byte_perplexity,none", "bits_per_byte,none"}),
        ("vote", {"share,all", "longest,all"}),
        ("last", {"perplexity,none", "acc,none"}),
        ("labels", {"acc,none", "recall,none"}),
        ("gaps", {"answered,none", "place,none"}),
    ],
)
def test_samples_and_values_are_those_of_lm_eval_alone(tmp_path: Path, name: str, metrics: set[str]) -> None:
    paths = planned(tmp_path, name)
    theirs = alone(dummy_lm(), name, tmp_path / "tasks", bootstrap_iters=1000)
    rows, ours = run_through(paths)
    samples = theirs["samples"][name]
    assert len(rows) == len({sample["doc_id"] for sample in samples})
    assert same_samples(rows, theirs["samples"]) > 0 or name == "read"
    assert same_values(ours, theirs["results"][name]) == metrics == set(ours)


def test_a_group_is_one_run_with_each_task_and_the_groups_own_value(tmp_path: Path) -> None:
    paths = planned(tmp_path, "both")
    theirs = alone(dummy_lm(), "both", tmp_path / "tasks", bootstrap_iters=1000)
    rows, ours = run_through(paths)
    assert {row["input"]["task"] for row in rows} == {"blank", "last"}
    assert len({row["id"] for row in rows}) == len(rows) == 60
    assert same_samples(rows, theirs["samples"]) == 90
    for task in ("blank", "last"):
        assert same_values(ours["task"][task], theirs["results"][task])
    group = theirs["groups"]["both"]
    assert ours["acc,none"]["value"] == group["acc,none"]
    assert ours["acc,none"]["stderr"] == group["acc_stderr,none"]
    assert (ours["acc,none"]["n"], ours["perplexity,none"]["n"]) == (60, 30)
    assert ours["perplexity,none"]["value"] == theirs["results"]["last"]["perplexity,none"]  # the only task that has it
    assert ours["task"]["blank"]["perplexity,none"]["n"] == 0


def test_a_tag_has_its_tasks_values_and_none_of_its_own(tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks", rows=6)
    theirs = alone(dummy_lm(), "words", folder, limit=4, bootstrap_iters=1000)["results"]
    config = config_of(folder, "words")
    config = config.model_copy(update={"data": config.data.model_copy(update={"max_samples": 4})})
    draft = make_plan("eval", config, tmp_path / "run")
    draft.write()
    rows, ours = run_through(draft.paths, 1)
    assert len(rows) == 8
    assert (ours["acc,none"]["value"], ours["acc,none"]["n"]) == (None, 8)
    for task in ("blank", "last"):
        assert same_values(ours["task"][task], theirs[task])


def test_the_planned_code_runs_whatever_becomes_of_the_users(tmp_path: Path) -> None:
    paths = planned(tmp_path, "spell")
    theirs = alone(dummy_lm(), "spell", tmp_path / "tasks", bootstrap_iters=1000)
    (tmp_path / "tasks" / "utils.py").write_text("raise SystemExit('edited')")
    shutil.rmtree(tmp_path / "tasks")
    moved = RunPaths(paths.root.rename(tmp_path / "moved"))
    rows, ours = run_through(moved)
    assert same_samples(rows, theirs["samples"]) == 50
    assert same_values(ours, theirs["results"]["spell"])


def test_what_a_yaml_includes_from_other_folders_travels_with_it(tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks")
    (folder / "own").mkdir()
    (folder / "own" / "short.yaml").write_text("include: ../spell.yaml\ntask: short\n")
    theirs = alone(dummy_lm(), "short", folder / "own", bootstrap_iters=1000)
    draft = make_plan("eval", config_of(folder / "own", "short"), tmp_path / "run")
    draft.write()
    shutil.rmtree(folder)
    rows, ours = run_through(draft.paths, 1)
    assert same_samples(rows, theirs["samples"]) == 50
    assert same_values(ours, theirs["results"]["short"])


def test_a_task_named_by_the_path_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_tasks(tmp_path / "tasks", rows=6)
    (folder / "sub").mkdir()
    (folder / "sub" / "short.yml").write_text("include: ../spell.yaml\ntask: short\n")
    theirs = alone(dummy_lm(), str(folder / "sub" / "short.yml"), folder, bootstrap_iters=1000)
    monkeypatch.chdir(tmp_path)
    config = config_of(folder, "tasks/sub/short.yml")
    config = config.model_copy(update={"task": config.task.model_copy(update={"include_path": None})})
    draft = make_plan("eval", config, tmp_path / "run")
    draft.write()
    shutil.rmtree(folder)
    rows, ours = run_through(draft.paths, 1)
    assert same_samples(rows, theirs["samples"]) > 0
    assert same_values(ours, theirs["results"]["short"])
    assert read_config(draft.paths.config).task.name == str(folder / "sub" / "short.yml")
    assert Plan.read(draft.paths.plan).data.name == "short"


def test_a_task_is_never_taken_from_the_copy_in_an_earlier_run(tmp_path: Path) -> None:
    """lm_eval looks in all folders below include_path, and takes the first file by its path."""
    folder = write_tasks(tmp_path / "tasks", rows=6)
    make_plan("eval", config_of(folder, "spell"), folder / "zz").write()
    make_plan("eval", config_of(folder, "spell"), folder / "aa").write()
    with pytest.raises(ConfigError, match=r"lm_eval takes the task from the copy in one: .*/aa/code/"):
        make_plan("eval", config_of(folder, "spell"), tmp_path / "run")


def test_chosen_documents_keep_their_numbers(tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks", rows=9)
    chosen = {"blank": [1, 4, 7]}
    theirs = alone(dummy_lm(), "both", folder, samples=chosen, bootstrap_iters=1000)
    draft = make_plan("eval", config_of(folder, "both", samples=chosen), tmp_path / "run")
    draft.write()
    rows, ours = run_through(draft.paths, 1)
    assert [row["id"] for row in rows if row["input"]["task"] == "blank"] == ["blank:1", "blank:4", "blank:7"]
    assert same_samples(rows, theirs["samples"]) == 3 + 9 * 2
    for task in ("blank", "last"):
        assert same_values(ours["task"][task], theirs["results"][task])


def test_predicted_only_there_are_answers_and_no_scores(tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks", rows=6)
    theirs = alone(dummy_lm(), "spell", folder, predict_only=True)["samples"]["spell"]
    draft = make_plan("eval", config_of(folder, "spell", predict_only=True), tmp_path / "run")
    draft.write()
    rows, ours = run_through(draft.paths, 1)
    logged = [sample["resps"][0][0] for sample in theirs if sample["filter"] == "strict-match"]
    assert [row["completion"] for row in rows] == logged
    assert ours == {}
    assert "scores" not in rows[0]


def test_the_runs_config_says_what_the_task_has_decided(tmp_path: Path) -> None:
    paths = planned(tmp_path, "spell")
    task = read_config(paths.config).task
    filters = ("strict-match", "flexible-extract")
    assert task.metrics == tuple(f"{metric},{one}" for one in filters for metric in ("exact_match", "bleu"))
    assert (task.generation.max_new_tokens, task.generation.stop, task.few_shot.k) == (12, ("\n",), 0)
    again = make_plan("eval", read_config(paths.config), tmp_path / "again")
    assert contexts(again.table) == contexts(pq_inputs(paths))
    assert again.config.task == task


def pq_inputs(paths: RunPaths) -> Any:
    return pa.ipc.open_file(paths.data).read_all()


def test_few_shot_seed_system_turn_and_generation_are_simple_evaluates(tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks")
    table = make_plan("eval", config_of(folder, "pick", few_shot={"k": 3, "seed": 7}), tmp_path / "run").table
    theirs = alone(dummy_lm(), "pick", folder, num_fewshot=3, fewshot_random_seed=7, bootstrap_iters=0)
    assert contexts(table) == [sample["arguments"][0][0] for sample in theirs["samples"]["pick"]]
    system: dict[str, Any] = {
        "description": "Be brief.",
        "generation": {"max_new_tokens": 5},
    }
    table = make_plan("eval", config_of(folder, "spell", **system), tmp_path / "run").table
    options = {"system_instruction": "Be brief.", "gen_kwargs": {"max_gen_toks": 5}}
    theirs = alone(dummy_lm(), "spell", folder, bootstrap_iters=0, **options)
    logged = [sample for sample in theirs["samples"]["spell"] if sample["filter"] == "strict-match"]
    assert contexts(table) == [sample["arguments"][0][0] for sample in logged]
    assert "Be brief." in contexts(table)[0]
    assert [one["arguments"][1] for one in asked(table)] == [sample["arguments"][0][1] for sample in logged]


def asked(table: Any) -> list[dict[str, Any]]:
    return [decode(text)[0] for text in table.column("requests").to_pylist()]


def contexts(table: Any) -> list[str]:
    return [one["arguments"][0] for one in asked(table)]


@pytest.mark.model
def test_prompts_go_through_the_models_chat_template_as_hflm_does_it(tmp_path: Path) -> None:
    from lm_eval.models.huggingface import HFLM

    from hpcjobs.assets import ASSETS

    folder = write_tasks(tmp_path / "tasks", rows=4)
    table = make_plan("eval", config_of(folder, "pick", "tiny", chat_template=True), tmp_path / "run").table
    model = HFLM(str(ASSETS / "tiny"), device="cpu")
    theirs = alone(model, "pick", folder, apply_chat_template=True, fewshot_as_multiturn=True, bootstrap_iters=0)
    assert [tuple(one["arguments"]) for one in asked(table)] == [
        sample["arguments"][0] for sample in theirs["samples"]["pick"]
    ]
    assert contexts(table)[0].startswith("<|bos|><|user|>Reverse: ")


@pytest.mark.parametrize(
    ("name", "task", "said"),
    [
        ("spel", {}, "no task, group or tag 'spel'"),
        ("spell", {"metrics": ("exact_match",)}, "it has exact_match,strict-match, bleu,strict-match, "),
        ("spell", {"prompt": "{{ word }}"}, "task.prompt: an lm_eval task brings its own"),
        ("spell", {"cluster_by": "word"}, "task.cluster_by: an lm_eval task brings its own"),
        ("spell", {"messages": ({"role": "user", "content": "x"},)}, "task.messages: an lm_eval"),
        ("spell", {"chat_template": True}, "no chat template"),
        ("mixed", {}, "spell generate, and blank want log-likelihoods"),
        ("both", {"samples": {"blanc": [1]}}, r"both has no task 'blanc' \(did you mean 'blank'"),
        ("blank", {"samples": {"blank": [1, 4]}}, "in the interval"),
        ("blank", {"predict_only": True, "metrics": ["acc,none"]}, "predict_only and task.metrics: set one"),
        ("nowhere.yaml", {}, "no task, group or tag 'nowhere.yaml'"),
        ("broken", {}, "generation_kwargs.num_beams: 4 is nothing that hpcjobs' engines do"),
    ],
)
def test_what_cannot_be_planned_is_said_at_once(tmp_path: Path, name: str, task: dict[str, Any], said: str) -> None:
    folder = write_tasks(tmp_path / "tasks", rows=4)
    with pytest.raises(ConfigError, match=said):
        make_plan("eval", config_of(folder, name, **task), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_keys_of_lm_eval_tasks_are_refused_elsewhere(tmp_path: Path) -> None:
    config = validate(Layer({"model": {"engine": "dummy"}, "task": {"prompt": "x", "samples": {"a": [1]}}}))
    with pytest.raises(ConfigError, match=r"task\.samples and task\.predict_only are for task\.type lm_eval"):
        make_plan("eval", config, tmp_path / "run")


def test_another_lm_eval_than_the_planned_one_does_not_run(tmp_path: Path) -> None:
    paths = planned(tmp_path, "blank")
    task = paths.code / "lm_eval_task" / "task.json"
    task.write_text(json.dumps(json.loads(task.read_text()) | {"version": "0.4.0"}))
    with Ranks(paths, 1) as ranks:
        ranks.start(0)
        assert ranks.finish(0) == [2]
    with pytest.raises(ConfigError, match=r"planned with lm_eval 0\.4\.0"):
        merge(paths)


def test_a_data_set_beside_the_tasks_own_is_refused(tmp_path: Path) -> None:
    config = config_of(write_tasks(tmp_path / "tasks"), "spell")
    named = config.model_copy(update={"data": config.data.model_copy(update={"name": "unified"})})
    with pytest.raises(ConfigError, match=r"^data\.name is 'unified', .*: leave data\.name out"):
        make_plan("eval", named, tmp_path / "run")


def test_the_files_that_hpcjobs_adds_are_not_the_users_own(tmp_path: Path) -> None:
    paths = planned(tmp_path, "spell")
    own = [path for path in (paths.code / "lm_eval_task" / "include").rglob("*") if not path.is_symlink()]
    files = [path for path in own if path.is_file()]
    assert 0 < len(files) < sum(path.is_file() for path in paths.code.rglob("*"))
    assert f"code    {len(files)} of your own files, as they are now" in Plan.read(paths.plan).summary()
