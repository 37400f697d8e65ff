"""Whether a model folder is still the one that was planned: a `latest/` may be written again while a job waits."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

from hpcjobs.config import ModelConfig
from hpcjobs.engines.loader import ModelSource
from hpcjobs.engines.weight_files import read_header, stored_tensors
from hpcjobs.errors import ConfigError
from hpcjobs.run_folder.files import sha256_of
from hpcjobs.run_folder.plan import PlanModel
from hpcjobs.run_folder.planned import ChangedError, differences

# Bytes that are read of a file, and of each tensor in it; and how many places of a file without a header.
_HEAD, _TENSOR_HEAD, _PLACES = 1 << 20, 1 << 12, 512
_SHOWN = 5


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


def weight_digests(folder: Path, full: bool = False) -> dict[str, str]:
    """A SHA-256 by file of a model folder: of its size, its first MiB and the first 4 KiB of each tensor, or of all.

    Training changes all tensors that it changes at all, so another checkpoint differs although names, shapes and sizes
    are equal. Hidden files and *.md are left out: nothing is loaded from them.
    """
    named = [*folder.iterdir(), *folder.glob("additional_chat_templates/*")]
    files = [path for path in named if path.is_file() and not path.name.startswith(".") and path.suffix != ".md"]
    return {str(path.relative_to(folder)): sha256_of(path) if full else _sampled(path) for path in sorted(files)}


def _sampled(path: Path) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size}\0".encode())
    with path.open("rb") as file:
        digest.update(file.read(_HEAD))
        for begin, end in _tensors(path) if size > _HEAD else ():
            file.seek(begin)
            digest.update(file.read(min(_TENSOR_HEAD, end - begin)))
    return digest.hexdigest()


def _tensors(path: Path) -> list[tuple[int, int]]:
    """Where the tensors of a file lie; of other formats, places all over the file."""
    if path.suffix == ".safetensors":
        with contextlib.suppress(ConfigError, OSError):  # a damaged one differs already
            return sorted((tensor.begin, tensor.end) for tensor in read_header(path).values())
    size = path.stat().st_size
    return [(place, size) for place in range(_HEAD, size, max(_TENSOR_HEAD, size // _PLACES))]


def changed_weights(model: ModelConfig, planned: PlanModel) -> list[str]:
    """What differs in the model's folder from what was planned, one line each with both hashes.

    Runs of earlier versions have one hash of all files. Where a file is damaged, a ConfigError names file and tensor.
    """
    folder = Path(ModelSource.of(model).location)
    if not folder.is_dir():
        return differences(folder, planned.files or {}, {})[:1]
    if planned.files:
        changed = differences(folder, planned.files, weight_digests(folder, model.verify_weights == "full"))
    elif planned.weights_sha256 and (now := weights_fingerprint(folder)) != planned.weights_sha256:
        changed = differences(folder.parent, {folder.name: planned.weights_sha256}, {folder.name: now})
    else:
        changed = []
    if changed and planned.weights_sha256:
        stored_tensors(folder)
    return changed


def check_planned(model: ModelConfig, planned: PlanModel, run: object, allowed: bool = False) -> None:
    """Raise a ChangedError if the files of the model's folder are not those that were planned for `run` (its folder or
    name), unless that is `allowed`.
    """
    if not allowed and (changed := changed_weights(model, planned)):
        raise changed_error(changed, run)


def changed_error(changed: Sequence[str], run: object) -> ChangedError:
    """The error that names what has changed since the run was planned, and what to do."""
    more = f"\nand {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
    return ChangedError(
        "this is not what was planned:\n" + "\n".join(changed[:_SHOWN]) + more + f"\nPut it back, then: hpcjobs resume "
        f"{run}; or submit another run for what is there now; or accept the mixture: hpcjobs resume {run} "
        "--allow-changed"
    )
