"""What was probably meant by words that typer refuses."""

from __future__ import annotations

from collections.abc import Sequence


def hint(words: Sequence[str]) -> str | None:
    """The next command to type, where it is known."""
    if list(words[:2]) == ["submit", "script"] and "--" not in words:
        return "the program and its own options stand behind --: hpcjobs submit script --nodes 2 -- prog.py --option"
    if words[:1] == ["resume"] and any(word == "--set" or word.startswith("--set=") for word in words):
        return (
            "a resume keeps the config of its run, and takes another shape (--nodes, --gpus, --time...): "
            "for other values submit a new run"
        )
    return None
