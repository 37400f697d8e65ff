"""`import hpcjobs` gives the version and the connector, and imports nothing before it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import hpcjobs
from hpcjobs.connector import AccelerateConnector

FIRST_LOOK = """
import sys
import hpcjobs

assert [name for name in sys.modules if name.startswith("hpcjobs")] == ["hpcjobs"]
assert "AccelerateConnector" in dir(hpcjobs) and "__version__" in dir(hpcjobs)
assert [name for name in sys.modules if name.startswith("hpcjobs")] == ["hpcjobs"], "a look at the names"
from hpcjobs import *
assert AccelerateConnector is hpcjobs.AccelerateConnector
assert AccelerateConnector.__module__ == "hpcjobs.connector"
print(*sorted({"torch", "transformers", "accelerate", "datasets"} & sys.modules.keys()))
"""


def test_the_connector_is_imported_when_it_is_first_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", FIRST_LOOK], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


def test_it_is_the_class_of_the_module_and_a_type_checker_knows_it() -> None:
    connector: AccelerateConnector = hpcjobs.AccelerateConnector("tiny")
    assert type(connector) is AccelerateConnector
    with pytest.raises(AttributeError, match="module 'hpcjobs' has no attribute 'AccelerateConector'"):
        hpcjobs.AccelerateConector  # type: ignore[attr-defined]  # noqa: B018
