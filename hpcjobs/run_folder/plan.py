"""plan.json: what a run is to be, fixed when planning."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcjobs.config.shape import Shape
from hpcjobs.run_folder.files import read_json, write_json
from hpcjobs.run_folder.job_kinds import JobKind, find_kind


@dataclass(frozen=True, kw_only=True)
class Plan:
    """plan.json: nodes, ranks, GPUs, chunking, and what was hashed so that one knows what ran."""

    run: str
    job: str
    shape: Shape
    rows: int
    chunk_size: int
    chunks: int
    data: dict[str, Any]
    model: dict[str, Any]
    config_sha256: str
    code: dict[str, Any]
    created_at: float
    argv: list[str] = field(default_factory=list)
    train: dict[str, Any] = field(default_factory=dict)
    version: int = 1

    @classmethod
    def read(cls, path: Path) -> Plan:
        values = read_json(path)
        return cls(**values | {"shape": Shape(**values["shape"])})

    def write(self, path: Path) -> None:
        write_json(path, dataclasses.asdict(self))

    @property
    def kind(self) -> JobKind:
        """The kind of its job."""
        return find_kind(self.job)

    def summary(self) -> list[str]:
        """The plan in a few lines, for people."""
        lines = [f"run     {self.run}", f"job     {self.job}: {self.shape}", *self._code_lines()]
        if self.kind.program:
            return [*lines, f"command {' '.join(self.argv)}"]
        lines += self._model_lines() if self.model else []
        if self.kind.unit != "answers":
            lines += [f"data    {self.data['name']}: {self.rows} rows"] if self.data else []
            return [*lines, *self._train_lines()] if self.train else lines
        chunks = f"{self.chunks} chunks of at most {self.chunk_size}, smaller ones at the end"
        if self.chunks == self.rows:
            chunks = f"{self.chunks} chunks of one"
        return [*lines, f"data    {self.data['name']}: {self.rows} rows in {chunks}"]

    def _train_lines(self) -> list[str]:
        train = self.train
        lines = [f"batch   {train['global_batch']} a step: {train['batches']}", f"steps   {train['steps']}"]
        lines += [f"then    eval of model/ by {train['then_eval']}"] if train["then_eval"] else []
        return lines + [f"note    {note}" for note in train["notes"]]

    def _code_lines(self) -> list[str]:
        snapshot = self.code.get("snapshot", {})
        copied = [f"code    {snapshot['files']} of your own files, as they are now"] if snapshot.get("files") else []
        return copied + ([f"note    {snapshot['note']}"] if snapshot.get("note") else [])

    def _model_lines(self) -> list[str]:
        model = self.model
        likely = f": {model['likely_engine']}" if "likely_engine" in model else ""
        plain = self.kind.unit == "steps" or model["engine"] == model["name"]
        engine = "" if plain else f" (engine {model['engine']}{likely})"
        lines = [f"model   {model['name']}{engine}"]
        if model.get("commit"):
            lines.append(f"commit  {model['commit']}")
        elif "cache" in model:
            lines.append(f"note    not in the cache {model['cache']}: would be fetched before anything is queued")
        return lines
