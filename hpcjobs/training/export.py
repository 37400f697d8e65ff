"""What a training gives away: a model folder that plain transformers loads, whole or not there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from hpcjobs.files import FILE_MODE, FOLDER_MODE, sync_folder, temporary_name
from hpcjobs.training.card import model_card

if TYPE_CHECKING:
    from hpcjobs.training.setup import Ready
    from hpcjobs.worker import Work


def write_model(work: Work, ready: Ready, target: Path) -> None:
    """All ranks together: the model of now as the folder `target`. Adapters are merged into what they adapt."""
    temporary, model = temporary_name(target), ready.state.model
    if work.config.train.lora.rank:
        model = ready.state.plain.merge_and_unload()
    ready.connector.save_model(model, temporary)
    if work.rank.is_main:
        (temporary / "README.md").write_text(model_card(work.paths, work.config, work.plan), encoding="utf-8")
        _name(temporary, target)


def _name(temporary: Path, target: Path) -> None:
    """Make a finished folder durable and private, and give it its name; one that stands there already goes."""
    for path in temporary.iterdir():
        path.chmod(FILE_MODE)
        with path.open("rb") as file:
            os.fsync(file.fileno())
    temporary.chmod(FOLDER_MODE)
    shutil.rmtree(target, ignore_errors=True)
    os.rename(temporary, target)
    sync_folder(target.parent)
