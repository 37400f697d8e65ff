"""A metric, an engine, a job kind and a verb from another package, installed beside hpcjobs, in runs of their own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcjobs import plugins
from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.errors import ConfigError, UsageError
from hpcjobs.launch.slurm import clean_environment
from hpcjobs.metrics import find_metric
from hpcjobs.metrics.registry import lower_is_better
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.job_kinds import find_kind
from hpcjobs.run_folder.paths import RunPaths

EXTRA = Path(__file__).parent / "programs" / "hpcjobs_extra"
ROWS = [{"question": f"what is {n} and {n}", "gold": f"{2 * n}"} for n in range(5)]
TASK = ["--set", 'task.prompt="{{ question }}"', "--set", 'task.target="{{ gold }}"', "--set", "task.messages=null"]
CHOICE = ["--set", "task.type=choice", "--set", "task.choices=[a, b]"]
DECLARED = (EXTRA / "__init__.py").read_text().partition("would have\n")[2].partition("[project.scripts]")[0]


def install(folder: Path, name: str, points: str, version: str = "1.2") -> None:
    """What an installer leaves beside a package's files (packaging.python.org/specifications/entry-points)."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(points)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages that has the example, with the entry points that it declares."""
    points = "\n".join(line.strip() for line in DECLARED.splitlines()).replace('"', "")
    install(tmp_path / "site", "hpcjobs_extra", points.replace("[project.entry-points.", "["))
    shutil.copytree(EXTRA, tmp_path / "site" / "hpcjobs_extra")
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path / "site"


def run(site: Path, *words: str, start: str = "from hpcjobs.cli import main; sys.exit(main())") -> tuple[int, str, str]:
    """A command line in a process of its own, where the packages of `site` are installed: exit code, stdout, stderr."""
    env = clean_environment() | {
        "PYTHONPATH": str(site), "HPCJOBS_RUNS": str(site.parent / "runs"), "XDG_CONFIG_HOME": str(site.parent),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {start}", *words],
        env=env, cwd=site.parent, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def submit(site: Path, job: str, *words: str, executor: str = "debug") -> RunPaths:
    """A run that has ended well."""
    code, out, err = run(site, "submit", job, "--name", "r", "--executor", executor, "--data", "data.jsonl", *words)
    assert code == 0, out + err
    return RunPaths(site.parent / "runs" / "r")


def test_the_guide_shows_what_is_installed() -> None:
    guide = (EXTRA.parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = guide.partition("```toml\n")[2].partition("```")[0].splitlines()
    assert shown
    assert set(shown) <= {line.strip() for line in DECLARED.splitlines()}


def test_a_metric(site: Path) -> None:
    task = [*TASK, "--set", "task.metrics=[digits, exact_match, majority(digits)]", "--set", "model.engine=dummy"]
    task += ["--set", "task.repeats=3"]
    paths = submit(site, "eval", *task)
    metrics = read_json(paths.metrics)["metrics"]
    assert list(metrics) == ["digits", "exact_match", "majority(digits)"]
    assert 0 < metrics["digits"]["value"] < 1
    assert read_json(paths.plan)["code"]["packages"] == {"hpcjobs.metrics:digits": "hpcjobs_extra 1.2"}
    assert "hpcjobs.metrics:digits of hpcjobs_extra 1.2" in paths.report.read_text()
    code, out, err = run(site, "compare", "r", "r", "--gate", "digits=0.1")
    assert code == 0, err
    assert "digits" in out


def test_an_engine_without_a_model(site: Path) -> None:
    words = ["--set", "model.engine=echo", "--model", "parrot", "--set", "task.metrics=[exact_match]"]
    paths = submit(site, "eval", *TASK, *words)
    assert completions(paths) == [f"parrot: {row['question']}" for row in ROWS]
    plan = read_json(paths.plan)
    assert (plan["model"]["name"], plan["model"]["engine"]) == ("parrot", "echo")
    assert plan["code"]["packages"] == {"hpcjobs.engines:echo": "hpcjobs_extra 1.2"}
    code, _, err = run(site, "submit", "eval", *words, "--set", "task.metrics=[acc]", *CHOICE)
    assert code == 2
    assert "model.engine 'echo' does not do task.type choice: it does generate" in err


@pytest.mark.model
def test_an_engine_over_the_loaded_model(site: Path) -> None:
    paths = submit(site, "generate", *TASK, "--set", "model.engine=mirror", "--model", "tiny")
    answers = completions(paths)
    assert len(answers) == len(ROWS)
    assert all(row["question"] not in answer for row, answer in zip(ROWS, answers, strict=True))
    assert "weights_sha256" in read_json(paths.plan)["model"]


def completions(paths: RunPaths) -> list[str]:
    import pyarrow.parquet as pq

    found: list[str] = pq.read_table(paths.results).column("completion").to_pylist()
    return found


def test_a_kind_of_job_that_counts_nothing(site: Path) -> None:
    paths = submit(site, "count", "--ntasks-per-node", "2", "--wait", executor="local")
    assert [(paths.root / f"rows-{rank}.txt").read_text() for rank in (0, 1)] == ["5\n", "5\n"]
    code, out, _ = run(site, "status", "r", "--json")
    status = json.loads(out)
    assert (code, status["state"], status["job"], len(status["ranks"])) == (0, "complete", "count", 2)
    assert run(site, "merge", "r")[::2] == (2, "error: r is a count run: there is nothing to merge\n")
    assert run(site, "report", "r")[0] == 0
    assert "2 of 2 ranks ended well." in paths.report.read_text()
    assert "a count run: it has no samples to score" in run(site, "score", "r")[2]


def test_a_kind_of_job_with_answers(site: Path) -> None:
    words = ["--set", "task.metrics=[exact_match]", "--set", "model.engine=echo", "--model", "m"]
    paths = submit(site, "quiz", *TASK, *words, "--wait", executor="local")
    assert completions(paths) == [f"m: {row['question'].upper()}" for row in ROWS]
    assert read_json(paths.metrics)["complete"]
    assert set(read_json(paths.plan)["code"]["packages"]) == {"hpcjobs.engines:echo", "hpcjobs.jobs:quiz"}
    assert "5/5 samples (100%)" in run(site, "status", "r")[1]
    assert "is complete: nothing to resume" in run(site, "resume", "r")[2]
    assert "COMPLETE" in paths.report.read_text()


def test_a_verb(site: Path) -> None:
    submit(site, "count")
    start = "from hpcjobs_extra.verbs import main; main()"
    assert run(site, "ranks", "r", start=start) == (0, "1 ranks\n", "")
    assert json.loads(run(site, "ranks", "--json", start=start)[1]) == {"ranks": 1}
    code, out, _ = run(site, "--help", start=start)
    assert code == 0
    assert "How many ranks a run was planned for." in out
    assert "submit" in out


@pytest.fixture
def seen(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same packages, found by this process."""
    monkeypatch.syspath_prepend(str(site))
    plugins.registered.cache_clear()
    yield site
    plugins.registered.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "hpcjobs_extra"]:
        del sys.modules[name]


def test_names_of_packages_are_among_those_that_an_error_lists(seen: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no metric 'digit' \(did you mean 'digits'\?\); there are .*majority, digits"
    ):
        find_metric("digit")
    layer = Layer({"model": {"engine": "ecco"}}, {"model.engine": "c.yaml:2"})
    with pytest.raises(
        ConfigError, match=r"c.yaml:2: model.engine: is no engine \(did you mean 'echo'\?\): .* packages echo, mirror"
    ):
        validate(layer)
    with pytest.raises(UsageError, match=r"no job 'cont' \(did you mean 'count'\?\); .*sweep, map, count, quiz"):
        find_kind("cont")


def test_a_metric_says_which_way_is_worse(seen: Path) -> None:
    assert lower_is_better("digits")
    assert not lower_is_better("nothing.of:TheKind")


def test_what_cannot_be_used_is_said_with_its_package(seen: Path) -> None:
    points = "[hpcjobs.metrics]\ngone = nowhere:Metric\nplain = json:dumps\n[hpcjobs.engines]\necho2 = json:loads\n"
    install(seen, "broken", points)
    plugins.registered.cache_clear()
    with pytest.raises(
        ConfigError, match=r"'gone' of broken 1.2 \(hpcjobs.metrics\) cannot be used: nowhere:Metric: Mod"
    ):
        find_metric("gone")
    with pytest.raises(ConfigError, match="'plain' cannot be used: TypeError"):
        find_metric("plain")
    from hpcjobs.engines.registry import registered_engine

    with pytest.raises(ConfigError, match="'echo2' has no method stream"):
        registered_engine("echo2")


def test_two_packages_of_one_name_are_said(seen: Path) -> None:
    install(seen, "other", "[hpcjobs.metrics]\ndigits = other:Digits\n", "3")
    plugins.registered.cache_clear()
    with pytest.raises(ConfigError, match=r"'digits' is registered twice as hpcjobs.metrics: .* uninstall one of them"):
        find_metric("digits")


def test_a_kind_that_its_entry_point_does_not_add(seen: Path) -> None:
    install(seen, "empty", "[hpcjobs.jobs]\nnone = builtins:dict\n")
    plugins.registered.cache_clear()
    with pytest.raises(ConfigError, match=r"builtins:dict is registered as hpcjobs.jobs 'none' and adds no such kind"):
        find_kind("none")


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["submit", "eval", "--set", "model.engine=dummy", "--executor", "debug", "--max-samples", "2"],
        ["submit", "script", "--executor", "debug", "--", "-m", "this"],
        ["runs"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_no_entry_point_is_read_where_none_is_named(words: list[str], site: Path) -> None:
    start = (
        "from hpcjobs import plugins; from hpcjobs.cli import main; code = main(); "
        "print(plugins.registered.cache_info().currsize, file=sys.stderr); sys.exit(code)"
    )
    code, out, err = run(site, *words, start=start)
    assert (code, err.splitlines()[-1]) == (0, "0"), out + err
