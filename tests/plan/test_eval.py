"""The plan: shapes, what is checked before the queue, what is written."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcjobs.config import ClusterConfig, Config
from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.config.resolve import read_config
from hpcjobs.config.shape import Shape, shape_of
from hpcjobs.errors import ConfigError, DataError, UsageError
from hpcjobs.merge.eval import merge
from hpcjobs.plan.eval import make_plan
from hpcjobs.plan.script import make_script_plan
from hpcjobs.run_folder.inputs import Inputs
from hpcjobs.run_folder.ledger.chunks import ChunkList
from hpcjobs.run_folder.metrics_file import MetricsFile
from hpcjobs.run_folder.plan import Plan


def cluster_of(**values: Any) -> ClusterConfig:
    return validate(Layer({"cluster": values})).cluster


@pytest.mark.parametrize(
    ("cluster", "each", "shape", "words"),
    [
        ({}, 1, (1, 1, 0), "1 node x 1 task = 1 rank on CPU"),
        ({"nodes": 2, "gpus": 8}, 1, (2, 4, 4), "2 nodes x 4 GPUs = 8 ranks"),
        ({"nodes": 2, "gpus_per_node": 4}, 1, (2, 4, 4), "2 nodes x 4 GPUs = 8 ranks"),
        ({"nodes": 2, "gpus": 8, "gpus_per_node": 4}, 1, (2, 4, 4), "2 nodes x 4 GPUs = 8 ranks"),
        ({"gpus": 1}, 1, (1, 1, 1), "1 node x 1 GPU = 1 rank"),
        ({"gpus": 0, "ntasks_per_node": 3}, 1, (1, 3, 0), "1 node x 3 tasks = 3 ranks on CPU"),
        ({"nodes": 3, "gpus": 0}, 1, (3, 1, 0), "3 nodes x 1 task = 3 ranks on CPU"),
        ({"gpus": 8}, 2, (1, 4, 8), "1 node x 8 GPUs = 4 ranks (2 GPUs a rank)"),
        ({"gpus": 8, "ntasks_per_node": 4}, 2, (1, 4, 8), "1 node x 8 GPUs = 4 ranks (2 GPUs a rank)"),
    ],
)
def test_slurms_words_made_exact(cluster: dict[str, int], each: int, shape: tuple[int, int, int], words: str) -> None:
    got = shape_of(cluster_of(**cluster), each)
    assert (got.nodes, got.ranks_per_node, got.gpus_per_node) == shape
    assert str(got) == words


@pytest.mark.parametrize(
    ("cluster", "each", "words"),
    [
        ({"nodes": 2, "gpus": 7}, 1, "--gpus 7 is the total .* --nodes 2: use --gpus 6 or --gpus 8"),
        ({"nodes": 4, "gpus": 3}, 1, "use --gpus 4, or another"),
        ({"gpus": 4}, 3, "4 GPUs a node do not divide by model.gpus_per_rank 3"),
        ({"gpus": 4, "ntasks_per_node": 2}, 1, "--ntasks-per-node 2 does not fit 4 GPUs.*4 ranks a node"),
        (
            {"nodes": 2, "gpus": 4, "gpus_per_node": 4},
            1,
            "--gpus 4 .* --gpus-per-node 4 on 2 node.*contradict",
        ),
        ({"gpus": 0, "gpus_per_node": 4}, 1, "contradict"),
    ],
)
def test_shapes_that_cannot_be(cluster: dict[str, int], each: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        shape_of(cluster_of(**cluster), each)


@settings(deadline=None)
@given(nodes=st.integers(1, 20), gpus=st.integers(1, 200))
def test_every_number_that_is_proposed_would_do(nodes: int, gpus: int) -> None:
    try:
        assert shape_of(cluster_of(nodes=nodes, gpus=gpus), 1).ranks == gpus
    except UsageError as error:
        proposed = [int(words.split()[0].rstrip(",")) for words in str(error).split("use ")[1].split("--gpus ")[1:]]
        assert proposed
        for number in proposed:
            assert shape_of(cluster_of(nodes=nodes, gpus=number), 1).ranks == number


def test_a_script_may_have_any_number_of_ranks_on_its_gpus() -> None:
    assert shape_of(cluster_of(gpus=4, ntasks_per_node=1), 1, script=True) == Shape(1, 1, 4, 1)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HPCJOBS_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"r{n}", "q": "x" * (n % 7), "a": "y"} for n in range(100)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def config_of(**changes: dict[str, Any]) -> Config:
    values: dict[str, dict[str, Any]] = {
        "model": {"engine": "dummy"},
        "data": {"name": "d.jsonl"},
        "task": {"prompt": "{{ q }}", "target": "{{ a }}", "metrics": ["exact_match"]},
    }
    return validate(
        Layer({section: values.get(section, {}) | changes.get(section, {}) for section in {*values, *changes}})
    )


def test_planning_writes_nothing_and_writing_writes_all(home: Path) -> None:
    draft = make_plan("eval", config_of(run={"name": "a", "chunk_size": 4}))
    assert not (home / "runs").exists()
    draft.write()
    paths = draft.paths
    assert paths.root == home / "runs" / "a"
    assert stat.S_IMODE(paths.root.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in paths.root.rglob("*"))
    assert Plan.read(paths.plan) == draft.plan
    assert read_config(paths.config) == draft.config
    inputs = Inputs(paths.data)
    assert [row["id"] for row in inputs.rows(0, 100).to_pylist()] == [f"r{n}" for n in range(100)]
    chunks = ChunkList.read(paths.chunks(0))
    assert sorted(index for number in range(len(chunks)) for index in chunks[number]) == list(range(100))
    assert max(chunks.sizes()) <= 4
    assert len(str(inputs[chunks[0][0]]["q"])) == 6  # the longest first


def test_the_config_of_a_run_stands_alone(home: Path) -> None:
    config = make_plan("eval", config_of(run={"name": "a"})).config
    assert config.data.name == str(home / "d.jsonl")
    assert (config.run.name, config.run.root) == ("a", str(home / "runs"))


def test_chunks_depend_on_data_and_chunk_size_alone(home: Path) -> None:
    one = make_plan("eval", config_of(run={"chunk_size": 4}))
    other = make_plan("eval", config_of(run={"chunk_size": 4}, cluster={"nodes": 3, "gpus": 12}))
    assert [chunk.tolist() for chunk in one.chunks] == [chunk.tolist() for chunk in other.chunks]
    assert one.plan.data.sha256 == other.plan.data.sha256
    assert one.plan.config_sha256 != other.plan.config_sha256


def test_names_are_made_up_new_and_safe(home: Path) -> None:
    names = {make_plan("eval", config_of(model={"name": "org/Mödel 7b"})).plan.run for _ in range(5)}
    assert len(names) == 5
    assert all(name.startswith("eval-M-del-7b-d-") for name in names)


def test_a_taken_name_is_not_overwritten(home: Path) -> None:
    make_plan("eval", config_of(run={"name": "a"})).write()
    before = (home / "runs/a/plan.json").read_bytes()
    with pytest.raises(UsageError, match=r"runs/a exists.*hpcjobs resume a"):
        make_plan("eval", config_of(run={"name": "a"})).write()
    assert (home / "runs/a/plan.json").read_bytes() == before


def test_what_fails_while_writing_leaves_no_folder(home: Path) -> None:
    draft = make_plan("eval", config_of(run={"name": "a"}))
    object.__setattr__(draft.plan, "argv", [b"no JSON"])
    with pytest.raises(TypeError):
        draft.write()
    assert os.listdir(home / "runs") == []


def test_run_dir_names_folder_and_run(home: Path) -> None:
    draft = make_plan("eval", config_of(), Path("elsewhere/b"))
    assert draft.paths.root == home / "elsewhere/b"
    assert draft.plan.run == "b"
    for wrong in ("elsewhere/..", "elsewhere/a b", "new\nline/b"):
        with pytest.raises(UsageError, match=r"not a valid name|control character"):
            make_plan("eval", config_of(), Path(wrong))


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"task": {"metrics": []}}, ConfigError, "task.metrics is empty.*submit generate"),
        ({"task": {"target": None}}, ConfigError, "task.target is not set, and exact_match compare"),
        ({"task": {"group_by": ["level"]}}, ConfigError, "task.group_by: no column 'level'; its columns: q, a"),
        ({"task": {"metrics": ["pass@2"]}}, ConfigError, r"'pass@2' needs 2 answers a prompt: set task.repeats"),
        ({"task": {"metrics": ["acc"]}}, ConfigError, "'acc' does not score tasks of type generate"),
        ({"task": {"metrics": ["exactmatch"]}}, ConfigError, "did you mean 'exact_match'"),
        ({"task": {"prompt": "{{ qq }}"}}, ConfigError, "'qq'"),
        ({"task": {"prompt": "{{ q.no.more }}"}}, DataError, "templates fail on the first row .id 'r0'."),
        ({"task": {"target": "{{ a / 2 }}"}}, DataError, "templates fail on the first row"),
        ({"data": {"name": "e.jsonl"}}, DataError, r"e\.jsonl does not exist"),
        ({"model": {"engine": "generate"}}, ConfigError, r"model\.name is not set.*tiny"),
        ({"model": {"engine": "generate", "name": "./m"}}, ConfigError, "model folder ./m does not exist"),
        (
            {"model": {"engine": "generate", "name": "a/b/c"}},
            ConfigError,
            "model folder a/b/c does not exist",
        ),
        ({"model": {"engine": "generate", "name": "."}}, ConfigError, r"no config\.json"),
        ({"cluster": {"nodes": 2, "gpus": 3}}, UsageError, "--gpus 2 or --gpus 4"),
    ],
)
def test_what_can_be_known_before_the_queue_is_checked(
    home: Path, changes: dict[str, dict[str, Any]], kind: type[UsageError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        make_plan("eval", config_of(**changes))
    assert sorted(os.listdir(home)) == ["d.jsonl"]


def test_generate_needs_neither_metrics_nor_target(home: Path) -> None:
    config = config_of(task={"target": None, "metrics": ["exact_match"]})
    assert make_plan("generate", config).config.task.metrics == ()


def test_a_plan_of_no_rows(home: Path) -> None:
    draft = make_plan("eval", config_of(data={"name": "d.jsonl", "max_samples": 0}))
    assert (draft.plan.rows, draft.plan.chunks) == (0, 0)
    draft.write()
    assert len(Inputs(draft.paths.data)) == len(ChunkList.read(draft.paths.chunks(0))) == 0


def no_weights(folder: Path, config: dict[str, Any]) -> None:
    """A model folder whose weights file is whole, and has none."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")


def test_a_models_files_are_known_again(home: Path) -> None:
    no_weights(home / "m", {})

    def fingerprint() -> str:
        plan = make_plan("eval", config_of(model={"engine": "generate", "name": "m"})).plan
        assert plan.model.name == str(home / "m")
        return str(plan.model.weights_sha256)

    first = fingerprint()
    assert fingerprint() == first
    (home / "m/other.json").write_text("2")
    assert fingerprint() != first


@pytest.mark.parametrize("argv", [[], ["-m"], ["none.py"], ["lss"]])
def test_a_script_that_is_not_there(home: Path, argv: list[str]) -> None:
    with pytest.raises(UsageError, match=r"nothing to run|neither a file here nor a command"):
        make_script_plan(Config(), argv)


def test_the_plan_of_a_script(home: Path) -> None:
    (home / "p.py").write_text("")
    plan = make_script_plan(Config(), ["p.py", "--x", "a b"]).plan
    assert (plan.job, plan.argv, plan.rows, plan.chunks) == ("script", ["p.py", "--x", "a b"], 0, 0)
    assert make_script_plan(Config(), ["-m", "json.tool"]).plan.argv == ["-m", "json.tool"]
    assert plan.summary()[-1].startswith("command p.py --x")


def test_a_plan_says_shape_model_and_data(home: Path) -> None:
    text = "\n".join(make_plan("eval", config_of(run={"name": "a"}, cluster={"nodes": 2, "gpus": 8})).plan.summary())
    assert "2 nodes x 4 GPUs = 8 ranks" in text
    assert "100 rows" in text
    assert "dummy" in text


PLAIN = {"model_type": "llama"}


@pytest.mark.parametrize(
    ("model", "given", "engine"),
    [
        (PLAIN, {}, "loop"),
        (PLAIN, {"cluster": {"gpus": 2}}, "transformers"),
        (PLAIN, {"cluster": {"gpus": 2}, "run": {"deterministic": True}}, "loop"),
        (PLAIN, {"cluster": {"gpus": 2}, "task": {"generation": {"temperature": 0.5}}}, "loop"),
        (PLAIN | {"sliding_window": 4096}, {}, "generate"),
        (PLAIN | {"sliding_window": 4096, "use_sliding_window": False}, {}, "loop"),
        ({"text_config": {"layer_types": ["full_attention", "sliding_attention"]}}, {}, "generate"),
        ({"text_config": {"layer_types": ["full_attention"] * 2}}, {}, "loop"),
        ({"model_type": "mamba2"}, {"cluster": {"gpus": 2}}, "generate"),
        ({"model_type": "gpt_neo"}, {}, "generate"),
        ({"model_type": "gpt_neox"}, {}, "loop"),
        (PLAIN | {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, {}, "generate"),
        (PLAIN | {"rope_parameters": {"full_attention": {"rope_type": "longrope"}}}, {}, "generate"),
    ],
)
def test_the_plan_says_which_engine_is_likely(
    home: Path, model: dict[str, Any], given: dict[str, dict[str, Any]], engine: str
) -> None:
    no_weights(home / "m", model)
    plan = make_plan("eval", config_of(model={"engine": "auto", "name": "m"}, **given)).plan
    assert plan.model.likely_engine == engine
    assert f"(engine auto: {engine})" in "\n".join(plan.summary())


def test_null_cells_are_notes_of_the_plan_and_warnings_of_the_metrics(home: Path) -> None:
    rows = [{"q": "x", "a": None if n == 30 else "y"} for n in range(31)]
    (home / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    draft = make_plan("eval", config_of(task={"prompt": "{{ q }} {{ a }}", "target": "{{ q }}"}, run={"name": "a"}))
    note = "column 'a' is null in 1 of 31 rows, the first is row 30: the template writes it as None"
    assert draft.plan.summary()[-1] == f"note    {note}"
    draft.write()
    assert Plan.read(draft.paths.plan).notes == [note]
    merge(draft.paths)
    assert note in MetricsFile.read(draft.paths.metrics).warnings


def test_a_plan_of_an_earlier_version_has_no_notes(home: Path) -> None:
    draft = make_plan("eval", config_of(run={"name": "a"}))
    draft.write()
    assert "notes" not in json.loads(draft.paths.plan.read_text())
    assert Plan.read(draft.paths.plan) == draft.plan
