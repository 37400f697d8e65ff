"""Refuse secrets in a config: it is written to files that stay, and to scripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hpcjobs.config.schema import Config
from hpcjobs.errors import ConfigError
from hpcjobs.masking import masked, secret_values, without_literals

# Elsewhere, as in a prompt, `PASSWORD=hunter22` is what a model is asked about.
_TECHNICAL = ("cluster.", "model.", "data.", "run.")


def check_no_secrets(config: Config, places: Mapping[str, str]) -> None:
    """Raise a ConfigError if a value has that of a secret variable of this shell, or spells out one of its own."""
    secrets = {value: name for value, name in secret_values().items() if not _may_be_a_word(value)}
    for key, text in _texts("", config.model_dump(mode="json")):
        name = next((name for value, name in secrets.items() if value in text), None)
        literal = key.startswith(_TECHNICAL) and without_literals(text) != text
        if name or literal:
            what = f"has the value of {name}" if name else f"spells out a secret ({masked(text)})"
            raise ConfigError(
                f"{_place(key, places)}: {key} {what}, and config files and scripts are kept: export it in the shell "
                "that submits, which sbatch hands on to the job, and write $NAME where a shell reads it"
            )


def _may_be_a_word(value: str) -> bool:
    """`SORT_KEY=answer`, and `{{ answer }}` is in a prompt."""
    return value.isalpha() and len(value) < 16


def _texts(key: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from _texts(f"{key}.{name}" if key else str(name), item)


def _place(key: str, places: Mapping[str, str]) -> str:
    parts = key.split(".")
    around = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((places[one] for one in around if one in places), "config")
