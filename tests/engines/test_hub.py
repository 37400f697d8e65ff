"""Hub models: found in the cache or fetched before the queue, loaded by the ranks without the hub."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.assets import ASSETS
from hpcjobs.config import Config
from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.engines.hub import HubModel, at_commit, cache_folder, go_offline, is_hub_id
from hpcjobs.errors import ConfigError
from hpcjobs.launch.slurm import clean_environment
from hpcjobs.plan.eval import make_plan
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.plan import PlanModel
from tests.fake_slurm import FakeSlurm

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40
NAME = "some-org/tiny-model"


def write_cache(cache: Path, commit: str = COMMIT, ref: str | None = "main") -> Path:
    """The tiny asset model as huggingface_hub keeps a download of it; the snapshot's folder."""
    repo = cache / "models--some-org--tiny-model"
    shutil.copytree(ASSETS / "tiny", repo / "snapshots" / commit)
    if ref:
        (repo / "refs").mkdir(exist_ok=True)
        (repo / "refs" / ref).write_text(commit)
    return repo / "snapshots" / commit


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a hub that refuses."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HPCJOBS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    return tmp_path / "hf" / "hub"


def config_of(**model: Any) -> Config:
    task = {"prompt": "{{ question }}", "target": "{{ answer }}", "metrics": ["exact_match"]}
    data = {"name": "canned_50_quick", "max_samples": 4}
    return validate(Layer({"model": {"name": NAME} | model, "data": data, "task": task, "run": {"name": "r"}}))


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("gpt2", True), ("org/model-1.5B_x", True), ("a/b/c", False), ("./m", False), ("/m", False), ("~/m", False),
        ("org/", False), ("org/Mödel", False), ("", False), ("a b", False), ("x" * 97, False),
    ],
)  # fmt: skip
def test_names_that_the_hub_could_have(name: str, valid: bool) -> None:
    assert is_hub_id(name) is valid


@pytest.mark.parametrize(
    ("env", "folder"),
    [
        ({"HOME": "/h"}, "~/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/x", "HF_HOME": "/y"}, "/y/hub"),
        ({"HF_HOME": "/y", "HUGGINGFACE_HUB_CACHE": "/z"}, "/z"),
        ({"HUGGINGFACE_HUB_CACHE": "/z", "HF_HUB_CACHE": "/a"}, "/a"),
    ],
)
def test_the_cache_folder_is_where_the_library_looks(env: dict[str, str], folder: str) -> None:
    assert cache_folder(env) == Path(folder).expanduser()


def test_the_library_agrees(tmp_path: Path) -> None:
    code = "import os, huggingface_hub.constants as c; from hpcjobs.engines.hub import cache_folder as f\n"
    code += "assert str(f(os.environ)) == c.HF_HUB_CACHE, (f(os.environ), c.HF_HUB_CACHE)"
    given = [{name: f"{tmp_path}/{name}"} for name in ("HF_HOME", "XDG_CACHE_HOME", "HF_HUB_CACHE")]
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "XDG"))}
    for env in given:
        subprocess.run([sys.executable, "-c", code], env=bare | env, check=True)


def test_what_is_cached_is_pinned_without_the_hub(cache: Path) -> None:
    write_cache(cache)
    draft = make_plan("eval", config_of())
    assert draft.plan.model.commit == COMMIT
    assert draft.plan.model.cache == str(cache)
    assert any(COMMIT in line for line in draft.plan.summary())
    draft.write()
    assert read_json(draft.paths.plan)["model"]["commit"] == COMMIT


def test_a_branch_a_tag_and_a_commit(cache: Path) -> None:
    write_cache(cache, OTHER, ref="v2")
    write_cache(cache)
    assert [HubModel(NAME, revision, cache).cached() for revision in (None, "main", "v2", OTHER, "v3")] == [
        COMMIT, COMMIT, OTHER, OTHER, None,
    ]  # fmt: skip


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors", "token*"])
def test_half_a_model_is_not_enough(cache: Path, lost: str) -> None:
    folder = write_cache(cache)
    for path in folder.glob(lost):
        path.unlink()
    assert HubModel(NAME, None, cache).cached() is None
    with pytest.raises(ConfigError, match="did not give it"):
        HubModel(NAME, None, cache).fetch()


def test_every_shard_must_be_there(cache: Path) -> None:
    folder = write_cache(cache)
    weights = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    assert HubModel(NAME, None, cache).cached() is None
    (folder / "model-2.safetensors").touch()
    assert HubModel(NAME, None, cache).cached() == COMMIT


def test_what_cannot_be_had_is_an_error_and_leaves_no_folder(cache: Path, tmp_path: Path) -> None:
    draft = make_plan("eval", config_of(revision="v3"))
    assert draft.plan.model.commit is None
    assert any("would be fetched" in line for line in draft.plan.summary())
    assert not cache.exists()  # planning alone touches nothing
    with pytest.raises(ConfigError) as told:
        draft.write()
    for word in (NAME, "v3", str(cache), f"hf download {NAME} --revision v3 --cache-dir {cache}"):
        assert word in str(told.value)
    assert not (tmp_path / "runs").exists()


def test_the_jobs_own_cache_is_the_one_that_counts(cache: Path, tmp_path: Path) -> None:
    write_cache(tmp_path / "scratch" / "hub")
    config = config_of()
    env = {"HF_HOME": str(tmp_path / "scratch")}
    config = config.model_copy(update={"cluster": config.cluster.model_copy(update={"env": env})})
    assert make_plan("eval", config).plan.model.commit == COMMIT


def test_ranks_load_the_commit_from_the_plans_cache_offline(cache: Path, tmp_path: Path) -> None:
    model = PlanModel(name=NAME, commit=COMMIT, cache=str(cache))
    assert at_commit(config_of(revision="main"), model).model.revision == COMMIT
    assert at_commit(config_of(revision="main"), PlanModel(name="tiny")).model.revision == "main"
    env = {"HF_HOME": str(tmp_path / "other")}
    go_offline(model, env)
    assert env == {"HF_HOME": str(tmp_path / "other"), "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
    write_cache(tmp_path / "other" / "hub")
    env = {"HF_HOME": str(tmp_path / "other"), "HF_HUB_OFFLINE": "0"}
    go_offline(model, env)  # a node's own copy is used, and whoever sets the variable means it
    assert env == {"HF_HOME": str(tmp_path / "other"), "HF_HUB_OFFLINE": "0"}
    env = {}
    go_offline(PlanModel(name="tiny"), env)
    assert env == {"HF_HUB_OFFLINE": "1"}


def hpcjobs(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hpcjobs", *words]
    return subprocess.run(command, capture_output=True, text=True, env=clean_environment() | env, check=False)


class Hub(http.server.BaseHTTPRequestHandler):
    """The hub's answers about one repository, the files of `folder`."""

    folder: Path

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].strip("/")
        files = {file.relative_to(self.folder).as_posix(): file for file in self.folder.rglob("*") if file.is_file()}
        if path.startswith(f"api/models/{NAME}/revision/"):
            siblings = [{"rfilename": name} for name in files]
            return self._answer(json.dumps({"id": NAME, "sha": COMMIT, "siblings": siblings}).encode())
        if path == f"api/models/{NAME}/tree/{COMMIT}":
            tree = [{"type": "file", "path": n, "size": f.stat().st_size, "oid": n} for n, f in files.items()]
            return self._answer(json.dumps(tree).encode())
        name = path.removeprefix(f"{NAME}/resolve/{COMMIT}/")
        return self._answer(files[name].read_bytes(), name) if name in files else self.send_error(404)

    def _answer(self, content: bytes, name: str = "api") -> None:
        self.send_response(200)
        for key, value in {"Content-Length": str(len(content)), "ETag": f'"{name}"', "X-Repo-Commit": COMMIT}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_what_the_cache_lacks_is_fetched_and_no_more_than_is_needed(cache: Path, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    shutil.copytree(ASSETS / "tiny", repo)
    for name in ("pytorch_model.bin", "code.py", "onnx/model.safetensors", "consolidated.safetensors"):
        (repo / name).parent.mkdir(exist_ok=True)
        (repo / name).write_text("not wanted")
    handler = type("Handler", (Hub,), {"folder": repo})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            planned = hpcjobs(*SUBMIT, "--plan-only", HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
    assert planned.returncode == 0, planned.stderr
    assert read_json(tmp_path / "runs" / "r" / "plan.json")["model"]["commit"] == COMMIT
    fetched = {path.name for path in (cache / "models--some-org--tiny-model" / "snapshots" / COMMIT).iterdir()}
    assert fetched == {path.name for path in (ASSETS / "tiny").iterdir()} - {"README.md"}


SUBMIT = ("submit", "eval", "--model", NAME, "--max-samples", "4", "--gpus", "0", "--name", "r")


def test_a_submit_without_the_model_ends_with_2_and_queues_nothing(cache: Path, tmp_path: Path) -> None:
    fake = FakeSlurm(tmp_path / "slurm")
    path = f"{fake.bin}:{os.environ['PATH']}"
    dry = hpcjobs(*SUBMIT, "--dry-run", PATH=path)
    assert dry.returncode == 0, dry.stderr
    assert f"not in the cache {cache}: would be fetched" in dry.stdout
    assert not cache.exists()
    done = hpcjobs(*SUBMIT, PATH=path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-2].startswith(f"error: model {NAME!r}")
    assert done.stderr.splitlines()[-1].startswith("next: hf download")
    assert not (tmp_path / "runs" / "r").exists()
    assert fake.calls("sbatch") == []


@pytest.mark.model
def test_a_run_of_a_cached_model_never_asks_the_hub_though_its_branch_moves(cache: Path, tmp_path: Path) -> None:
    write_cache(cache)
    planned = hpcjobs(*SUBMIT, "--plan-only")
    assert planned.returncode == 0, planned.stderr
    broken = write_cache(cache, OTHER)  # main moves on, to something that cannot be loaded
    (broken / "config.json").write_text("{}")
    work = [sys.executable, "-m", "hpcjobs.worker", str(tmp_path / "runs" / "r")]
    elsewhere = clean_environment() | {"HF_HOME": str(tmp_path / "empty")}
    done = subprocess.run(work, env=elsewhere, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert hpcjobs("merge", str(tmp_path / "runs" / "r")).returncode == 0
    assert read_json(tmp_path / "runs" / "r" / "metrics.json")["provenance"]["model"]["commit"] == COMMIT
