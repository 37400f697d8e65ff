"""Whether a model folder is still the one that was planned: a `latest/` may be written again while a job waits."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hpcjobs.config import ModelConfig
from hpcjobs.engines.loader import ModelSource
from hpcjobs.engines.weight_files import stored_tensors
from hpcjobs.engines.weights import WeightsError
from hpcjobs.run_folder.plan import PlanModel


def weights_fingerprint(folder: Path) -> str:
    """A SHA-256 of names, sizes and first MiB of the model's files: it detects a swapped model without reading all of
    it.
    """
    digest = hashlib.sha256()
    templates = sorted((folder / "additional_chat_templates").glob("*.jinja"))
    for path in [*sorted(path for path in folder.iterdir() if path.is_file()), *templates]:
        with path.open("rb") as file:
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode() + file.read(1 << 20))
    return digest.hexdigest()


def check_planned(model: ModelConfig, planned: PlanModel) -> None:
    """Raise a WeightsError if the files of the model's folder are not those that were planned.

    Where they are damaged, a ConfigError names file and tensor. A hub model has its commit, and passes.
    """
    folder = Path(ModelSource.of(model).location)
    if not planned.weights_sha256 or not folder.is_dir() or weights_fingerprint(folder) == planned.weights_sha256:
        return
    stored_tensors(folder)
    raise WeightsError(
        f"model folder {folder} is not what was planned: its files have changed since. Put them back and resume the "
        "run, or submit another one for the model that is there now"
    )
