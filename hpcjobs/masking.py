"""Secrets, told by their names: they reach no file of a run, and are not shown.

A secret is the value of an environment variable with such a name, or what stands behind such a name in a text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

MASK = "***"
_NAME = re.compile(
    r"token(?!iz)|secret|password|passwd|api_?key|credential|(?:^|[_-])key$", re.IGNORECASE
)
# Shorter values stand in other words too, and paths are no secrets.
_SHORTEST = 6
# In texts: names as environments have them, and options and keys that are hardly ever anything else. `eos_token: </s>`
# and `sort_key=id` are neither.
_LITERAL = re.compile(
    r"""(?P<before>\b[A-Z0-9_]*(?:_TOKEN|_KEY|_SECRET|PASSWORD[A-Z0-9_]*)["']?\s*[=:]\s*["']?"""
    r"""|(?i:\b(?:[\w-]*password|passwd|api[-_]?key|(?:hf|auth|access|bearer)[-_]token|(?:client|api)[-_]secret))"""
    r"""(?:["']?\s*[=:]\s*["']?|(?<=\w)\s+(?=\S*\d)))"""
    r"""(?P<value>[^\s"',;&$`*<>(){}\[\]]{6,})"""
)
_KNOWN = re.compile(r"\b(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,})\b")
_LOGIN = re.compile(r"(?<=://)[^/@\s:]+:[^/@\s]+(?=@)")
_MARK = re.compile(r"\$\{secret:([A-Za-z_][A-Za-z0-9_]*)\}")
_OPTION = re.compile(r"--?[\w-]*(?:password|passwd|api[-_]?key|token|secret)", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Whether an environment variable of this name holds a secret: *_TOKEN, *_KEY, *_SECRET, *PASSWORD* and the like.
    """
    return _NAME.search(name) is not None


def secret_values(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Value -> name of the secrets in `env` (default: this process's), longest first."""
    found = {value: name for name, value in (os.environ if env is None else env).items() if _is_secret(name, value)}
    return dict(sorted(found.items(), key=lambda pair: -len(pair[0])))


def _is_secret(name: str, value: str) -> bool:
    return len(value) >= _SHORTEST and is_secret_name(name) and not os.path.exists(value)


def masked(text: str) -> str:
    """The text without secrets: of the environment, behind a name, in a login of a URL, and of well-known form."""
    return without_literals(without_values(text))


def without_values(text: str, secrets: Iterable[str] | None = None) -> str:
    """The text without values of secrets: `secrets`, or those in this process's environment."""
    for value in secret_values() if secrets is None else secrets:
        text = text.replace(value, MASK)
    return text


def without_literals(text: str) -> str:
    """The text without what stands behind the name of a secret, logins in URLs, and well-known forms."""
    return _LOGIN.sub(MASK, _KNOWN.sub(MASK, _LITERAL.sub(rf"\g<before>{MASK}", text)))


def hide_in_words(words: Sequence[str], keep: Callable[[str], str]) -> list[str]:
    """Words of a command line with `${secret:NAME}` for each secret.

    NAME is the variable that holds it; `keep` takes a secret that stands in none, and names one.
    """
    hidden: list[str] = []
    values = secret_values()
    for place, word in enumerate(words):
        for value, name in values.items():
            word = word.replace(value, f"${{secret:{name}}}")
        behind = place > 0 and _OPTION.fullmatch(words[place - 1]) and not word.startswith(("-", "$", "{{"))
        if behind and len(word) >= _SHORTEST and any(char.isdigit() for char in word):
            word = f"${{secret:{keep(word)}}}"
        for form in (_LITERAL, _KNOWN, _LOGIN):
            word = form.sub(lambda found: _kept(found, keep), word)
        hidden.append(word)
    return hidden


def _kept(found: re.Match[str], keep: Callable[[str], str]) -> str:
    groups = found.groupdict()
    return f"{groups.get('before', '')}${{secret:{keep(groups.get('value', found[0]))}}}"


def hidden_names(words: Sequence[str]) -> list[str]:
    """The variables that hold the secrets of such words."""
    return list(dict.fromkeys(name for word in words for name in _MARK.findall(word)))


def reveal(words: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """The words with their secrets from `env`. Raises a KeyError with the name of one that is not there."""
    return [_MARK.sub(lambda found: env[found[1]], word) for word in words]
