"""plan.json: the same JSON as before its sections were dataclasses, and files of before are read."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from hpcjobs.errors import NewerPlanError
from hpcjobs.run_folder.plan import Plan, PlanCode, PlanData, PlanModel

OLD = Path(__file__).parents[1] / "old_runs" / "0.1.tar.xz"


def old_plans() -> dict[str, bytes]:
    """The plan.json files that an earlier version wrote, by their run."""
    with tarfile.open(OLD) as archive:
        found = [member for member in archive.getmembers() if member.name.endswith("plan.json")]
        return {member.name: file.read() for member in found if (file := archive.extractfile(member))}


OLD_PLANS = old_plans()


@pytest.mark.parametrize("name", OLD_PLANS)
def test_a_plan_of_an_earlier_version_is_read_and_written_as_it_was(tmp_path: Path, name: str) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(OLD_PLANS[name])
    before, plan = json.loads(OLD_PLANS[name]), Plan.read(path)
    assert (plan.data.sha256, plan.model.name) == (before["data"]["sha256"], before["model"]["name"])
    assert plan.code.hpcjobs == before["code"]["hpcjobs"]
    plan.write(path)
    assert json.loads(path.read_bytes()) == before
    assert Plan.read(path) == plan


def test_a_hub_model_says_that_it_was_not_fetched_yet() -> None:
    here = PlanModel(name="m", engine="loop", weights_sha256="00")
    assert "commit" not in here.values()
    assert PlanModel(name="o/m", engine="loop", cache="/c").values()["commit"] is None
    assert (here.values()["revision"], here.values()["dtype"]) == (None, "auto")


def test_a_script_has_no_data_and_no_model() -> None:
    assert (PlanData().values(), PlanModel().values()) == ({}, {})


def test_what_another_version_knows_besides_is_passed_over() -> None:
    code = PlanCode.of({"hpcjobs": "9", "phase_of_moon": "new", "snapshot": {"files": 2, "also_new": 1}})
    assert (code.hpcjobs, code.hpcjobs_sha256, code.snapshot.files) == ("9", None, 2)
    assert code.values()["snapshot"] == {"files": 2}


def test_a_newer_plan_is_refused_with_the_version_that_it_needs(tmp_path: Path) -> None:
    values = json.loads(OLD_PLANS[min(OLD_PLANS)])
    values |= {"version": 2, "shape": "of another kind", "code": {"hpcjobs": "7.8.9"}}
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(values))
    with pytest.raises(NewerPlanError, match=r"plan\.json has format 2, .* the run needs hpcjobs 7\.8\.9 or later"):
        Plan.read(path)


def test_a_key_that_a_later_version_adds_to_this_format_is_passed_over(tmp_path: Path) -> None:
    values = json.loads(OLD_PLANS[min(OLD_PLANS)])
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(values | {"moon": {"phase": "new"}}))
    assert Plan.read(path).run == values["run"]
