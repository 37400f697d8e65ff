"""A task that would score otherwise on the ranks than where it is planned is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcjobs.errors import ConfigError
from hpcjobs.plan.eval import make_plan
from tests.lmeval_tasks import write_tasks
from tests.tasks.lmeval.test_run import config_of

KEEPS = {
    "from prompts": """
ASKED = {}


def question(doc):
    ASKED[doc["word"]] = len(ASKED)
    return doc["word"]


def shares(doc, results):
    return {"share": ASKED.get(doc["word"], -1), "longest": 0}
""",
    "from documents before": """
SEEN = []


def shares(doc, results):
    SEEN.append(doc["word"])
    return {"share": len(SEEN), "longest": 0}
""",
    "for its aggregation": """
SEEN = []


def shares(doc, results):
    SEEN.append(doc["word"])
    return {"share": 1.0, "longest": 0}


def longest(items):
    return len(SEEN)
""",
}


@pytest.mark.parametrize("kept", KEEPS)
def test_code_that_keeps_what_ranks_do_not_have_is_refused(tmp_path: Path, kept: str) -> None:
    folder = write_tasks(tmp_path / "tasks", rows=6)
    (folder / "utils.py").write_text((folder / "utils.py").read_text() + KEEPS[kept])
    text = (folder / "vote.yaml").read_text().replace('"Say {{word}}:"', "!function utils.question")
    (folder / "vote.yaml").write_text(text)
    with pytest.raises(ConfigError, match="vote scores by what it kept from other documents or from prompts"):
        make_plan("eval", config_of(folder, "vote"), tmp_path / "run")


def test_a_file_included_by_its_full_path_is_refused(tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks", rows=4)
    (folder / "own").mkdir()
    (folder / "own" / "t.yaml").write_text(f"include: {folder / 'spell.yaml'}\ntask: t\n")
    with pytest.raises(ConfigError, match="by its full path: write it relative to the file"):
        make_plan("eval", config_of(folder / "own", "t"), tmp_path / "run")


def test_code_that_imports_from_outside_of_the_copy_is_refused(tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "a" / "tasks", rows=4)
    (tmp_path / "a" / "beside_it.py").write_text("LENGTH = 3\n")
    start = "import sys\nfrom pathlib import Path\nsys.path.insert(0, str(Path(__file__).parents[1]))\n"
    (folder / "utils.py").write_text(start + "import beside_it\n" + (folder / "utils.py").read_text())
    with pytest.raises(ConfigError, match=r"No module named 'beside_it'; ranks load a copy of .*tasks, and not"):
        make_plan("eval", config_of(folder, "spell"), tmp_path / "run")
