"""The config: what is refused and how, layers, round trips."""

from __future__ import annotations

from pathlib import Path

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcjobs.config.checks import slurm_minutes
from hpcjobs.config.layers import Layer, set_layer, text_layer
from hpcjobs.config.problems import validate
from hpcjobs.config.resolve import dump, read_config, resolve, user_config
from hpcjobs.config.schema import Config
from hpcjobs.config.yaml import parse_yaml
from hpcjobs.errors import ConfigError, UsageError


def refused(text: str) -> str:
    """The message for a config file of this text."""
    with pytest.raises(ConfigError) as error:
        validate(text_layer(text, "c.yaml"))
    return str(error.value)


@pytest.mark.parametrize(
    ("time", "minutes"),
    [
        ("90", 90), (90, 90), ("1:30", 2), ("0:30", 1), ("1:30:00", 90), ("0:00:01", 1), ("100:00:00", 6000),
        ("1-0", 1440), ("2-12", 3600), ("2-12:30", 3630), ("1-00:00:01", 1441), ("0-0:10:00", 10), (" 5 ", 5),
        ("00:59:59", 60),
    ],
)  # fmt: skip
def test_all_of_slurms_time_formats(time: str | int, minutes: int) -> None:
    assert slurm_minutes(time) == minutes


@pytest.mark.parametrize("time", ["", "0", "0:00", "-5", "abc", "1-", "1:2:3:4", "1-2:3:4:5", "1h", "5m", "1.5", "٣"])
def test_other_times_are_refused(time: str) -> None:
    with pytest.raises(ValueError, match="time"):
        slurm_minutes(time)


def test_a_time_in_yaml_is_no_sexagesimal_number() -> None:
    cluster = validate(text_layer("cluster:\n  time: 1:30:00\n", "c.yaml")).cluster
    assert cluster.time == "1:30:00"
    assert cluster.minutes == 90
    assert validate(text_layer("cluster: {time: 45}", "c.yaml")).cluster.minutes == 45


def test_1e_4_is_a_float() -> None:
    assert validate(text_layer("model: {dummy_delay: 1e-4}", "c.yaml")).model.dummy_delay == 1e-4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model:\n  nmae: x\n", ["c.yaml:2", "unknown key 'model.nmae'", "did you mean 'name'"]),
        ("modle: {}\n", ["c.yaml:1", "'modle'", "did you mean 'model'", "cluster"]),
        ("task:\n  generation:\n    max_new_token: 3\n", ["c.yaml:3", "did you mean 'max_new_tokens'"]),
        (
            "task:\n  messages:\n    - {rol: user, content: x}\n",
            ["c.yaml:3", "'task.messages.0.rol'", "'role'"],
        ),
        ("cluster:\n  nodes: two\n", ["c.yaml:2", "cluster.nodes", "integer", "'two'"]),
        ("cluster:\n  nodes: true\n", ["c.yaml:2", "integer", "True"]),
        ('cluster:\n  nodes: "2"\n', ["c.yaml:2", "integer", "'2'"]),
        ("cluster:\n  nodes: 2.0\n", ["c.yaml:2", "integer"]),
        ("cluster:\n  nodes: 0\n", ["c.yaml:2", "greater than or equal to 1"]),
        ("train:\n  learning_rate: .inf\n", ["c.yaml:2", "finite number"]),
        ("train:\n  weight_decay: .nan\n", ["c.yaml:2", "finite number"]),
        ("cluster:\n  requeue: yes\n", ["c.yaml:2", "boolean", "'yes'"]),
        ("cluster:\n  time: soon\n", ["c.yaml:2", "cluster.time", "D-H:M:S", "'soon'"]),
        ("cluster:\n  time: [1]\n", ["c.yaml:2", "cluster.time"]),
        ("cluster:\n  modules: ['a; rm -rf /']\n", ["c.yaml:2", "cluster.modules.0"]),
        ("cluster:\n  env: {A: 'x\ty'}\n", ["c.yaml:2", "cluster.env.A", "control character"]),
        ("cluster:\n  env: {'A B': x}\n", ["c.yaml:2", "not the name of an environment variable"]),
        ("cluster:\n  sbatch: {'a b': x}\n", ["c.yaml:2", "not a long option"]),
        ("cluster:\n  sbatch:\n    nodes: 4\n", ["c.yaml:3", "set cluster.nodes instead"]),
        (
            "cluster:\n  sbatch:\n    ntasks_per_node: 4\n",
            ["c.yaml:3", "set cluster.ntasks_per_node instead"],
        ),
        ("cluster:\n  sbatch:\n    dependency: x\n", ["c.yaml:3", "hpcjobs sets it itself"]),
        ('cluster:\n  sbatch:\n    comment: "a\\nb"\n', ["c.yaml:3", "cluster.sbatch.comment", "newline"]),
        ('cluster:\n  partition: "a\\u2028b"\n', ["c.yaml:2", "cluster.partition", "control character"]),
        ('cluster:\n  srun_args: ["a\\nb"]\n', ["c.yaml:2", "cluster.srun_args.0", "control character"]),
        ("model:\n  trust_remote_code: true\n", ["c.yaml:2", "model.revision"]),
        (
            "run:\n  heartbeat: 60\n",
            ["c.yaml:2", "run.lease_timeout (120 s)", "3 times run.heartbeat (60 s)"],
        ),
        ("run:\n  name: a/b\n", ["c.yaml:2", "run.name", "'a/b'", "not a valid name"]),
        ("run:\n  name: ..\n", ["c.yaml:2", "not a valid name"]),
        ("task:\n  metrics: exact_match\n", ["c.yaml:2", "task.metrics", "must be a list"]),
        ("task:\n  generation: {stop: ['']}\n", ["c.yaml:2", "task.generation.stop.0"]),
        ("model: tiny\n", ["c.yaml:1", "model", "section", "'tiny'"]),
        ("1: {}\n", ["string"]),
        ("sweep: 3\n", ["c.yaml:1", "sweep: is a list of values for each name", "file (got 3)"]),
        ("sweep:\n  1: [2]\n", ["c.yaml:1", "the name 1 is no text"]),
        ("sweep:\n  lr: 0.1\n", ["c.yaml:2", "sweep.lr is a list of values", "sweep.lr=[0.1, 0.2] (got 0.1)"]),
        ("cluster:\n  sbatch:\n    comment: {a: b}\n", ["c.yaml:3: cluster.sbatch.comment: must be a text or a valid"]),
        ("task:\n  choices: {a: b}\n", ["c.yaml:2: task.choices: must be a text or a list"]),
        ("train:\n  betas: [0.1]\n", ["c.yaml:2: train.betas.1: is missing"]),
        ("task:\n  target: a\ndata:\n  delimiter: ab\n", ["c.yaml:4: data.delimiter: is one character", "'ab'"]),
    ],
)
def test_what_is_wrong_where_and_what_would_do(text: str, words: list[str]) -> None:
    message = refused(text)
    for word in words:
        assert word in message
    assert "\n" not in message or "rol:" in text


def test_several_problems_are_told_one_a_line_unknown_keys_first() -> None:
    lines = refused("cluster:\n  nodes: two\n  gpu: 3\n").splitlines()
    assert len(lines) == 2
    assert "unknown key 'cluster.gpu'" in lines[0]
    assert "cluster.nodes" in lines[1]


def test_a_flag_is_named_as_the_place() -> None:
    layer = set_layer(["clutser.nodes=2"])
    with pytest.raises(ConfigError, match=r"--set clutser\.nodes: unknown key 'clutser' \(did you mean 'cluster'"):
        validate(layer)


@pytest.mark.parametrize("name", ["HF_TOKEN", "MY_API_KEY", "db_password", "AWS_SECRET_ACCESS", "apikey"])
def test_a_secret_is_refused_and_not_shown(name: str) -> None:
    for value in ("hunter2", '"hunter2\\n"'):
        message = refused(f"cluster:\n  env:\n    {name}: {value}\n")
        assert name in message
        assert "c.yaml:3" in message
        assert "hunter2" not in message


def test_a_wrong_value_of_env_is_not_shown_either() -> None:
    assert "hunter2" not in refused('cluster: {env: {PW: "hunter2\\n"}}')


def test_the_config_is_frozen() -> None:
    config = Config()
    with pytest.raises(pydantic.ValidationError):
        config.cluster.nodes = 3  # type: ignore[misc]


_TEXT = st.text(max_size=20)
_LINE = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="\\"), max_size=20)


@settings(deadline=None, max_examples=60)
@given(
    prompt=_TEXT,
    target=_TEXT,
    stop=st.lists(st.text(min_size=1, max_size=5), max_size=3),
    comment=_LINE,
    seed=st.integers(),
)
def test_dump_and_read_give_the_same_config(prompt: str, target: str, stop: list[str], comment: str, seed: int) -> None:
    values = {
        "task": {"prompt": prompt, "target": target, "generation": {"stop": stop, "temperature": 1e-7}},
        "cluster": {
            "sbatch": {"comment": comment, "nice": 5, "hold": True},
            "env": {"A": comment},
            "time": "1:30:00",
        },
        "run": {"seed": seed},
    }
    config = validate(Layer(values))
    assert validate(Layer(parse_yaml(dump(config)))) == config


def test_read_config_from_a_file(tmp_path: Path) -> None:
    text = "größe 1e4 \U0001f600 \u2028 \x85 {{ a }}\r\n\tend "
    config = validate(Layer({"task": {"prompt": text, "target": "1e4"}, "run": {"name": "1e5"}}))
    (tmp_path / "config.yaml").write_bytes(dump(config).encode())
    assert read_config(tmp_path / "config.yaml") == config


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_defaults_profile_user_config_set(home: Path) -> None:
    keys = ("partition", "account", "qos", "constraint", "mem")
    (home / "configs/clusters").mkdir(parents=True)
    layers = {
        home / "configs/clusters/site.yaml": "profile",
        user_config(): "user",
        home / "c.yaml": "config",
    }
    for depth, (path, value) in enumerate(layers.items()):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("cluster:\n" + "".join(f"  {key}: {value}\n" for key in keys[depth + 1 :]))
    config, places = resolve("eval", Path("c.yaml"), "site", [set_layer(["cluster.mem=set"])])
    cluster = config.cluster
    assert (cluster.partition, cluster.account, cluster.qos, cluster.constraint, cluster.mem) == (
        None, "profile", "user", "config", "set",
    )  # fmt: skip
    assert cluster.requeue is True
    assert places["cluster.account"] == "configs/clusters/site.yaml:2"
    assert places["cluster.qos"] == f"{user_config()}:2"
    assert places["cluster.constraint"] == "c.yaml:2"
    assert places["cluster.mem"] == "--set cluster.mem"


def test_the_shipped_config_is_the_default_and_a_config_replaces_it(home: Path) -> None:
    shipped, _ = resolve("eval", None, None, [])
    assert shipped.data.name == "canned_50_quick"
    (home / "c.yaml").write_text("model: {engine: dummy}\n")
    assert resolve("eval", home / "c.yaml", None, [])[0].data.name == ""
    assert resolve("script", None, None, [])[0] == Config()


def test_profiles_that_are_not_there(home: Path) -> None:
    (home / "configs/clusters").mkdir(parents=True)
    (home / "configs/clusters/leonardo.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"no profile 'lenardo' \(did you mean 'leonardo'\?\); there are: .*leonardo"):
        resolve("eval", None, "lenardo", [])
    with pytest.raises(UsageError, match="not a valid name"):
        resolve("eval", None, "../leonardo", [])


@pytest.mark.parametrize("key", ["comment", "mail-user"])
def test_a_backslash_is_refused_where_sbatch_would_drop_it(key: str) -> None:
    with pytest.raises(ConfigError, match="has a backslash, which sbatch would drop"):
        validate(Layer({"cluster": {"sbatch": {key: "a\\b"}}}))
    assert validate(Layer({"cluster": {"env": {"X": "a\\b"}}})).cluster.env["X"] == "a\\b"


def test_a_tokenizers_setting_is_no_secret() -> None:
    assert validate(Layer({"cluster": {"env": {"TOKENIZERS_PARALLELISM": "false"}}}))
    with pytest.raises(ConfigError, match="looks like a secret"):
        validate(Layer({"cluster": {"env": {"HF_TOKEN": "x"}}}))


def test_extract_is_a_regular_expression() -> None:
    said = refused("task:\n  extract: '#### (\\d+'\n")
    assert "c.yaml:2" in said
    assert "task.extract" in said
    assert "is no regular expression of Python: missing ), unterminated subpattern" in said
    assert "task.extract" in refused("task: {extract: ''}")
    assert "task.normalize" in refused("task: {normalize: [lowercase]}")
    task = validate(text_layer("task: {extract: '(\\d+)', normalize: [lower], group_by: [a]}", "c.yaml")).task
    assert (task.extract, task.normalize, task.group_by) == (r"(\d+)", ("lower",), ("a",))
