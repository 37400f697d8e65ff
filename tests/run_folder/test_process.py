from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from hpcjobs.run_folder.process import Identity, machine_id, process_start
from tests.runs import process_state, wait_for


def identity_of(pid: int) -> Identity:
    return Identity(machine_id(), pid, process_start(pid) or "0")


def test_a_process_is_dead_when_it_has_ended_even_before_it_is_reaped() -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    identity = identity_of(process.pid)
    assert not identity.is_dead()
    process.kill()
    wait_for(lambda: process_state(process.pid) == "Z", "the zombie")
    assert identity.is_dead()
    process.communicate()
    assert identity.is_dead()


def test_a_stopped_process_is_not_dead() -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as process:
        identity = identity_of(process.pid)
        process.send_signal(signal.SIGSTOP)
        wait_for(lambda: process_state(process.pid) == "T", "the stop")
        assert not identity.is_dead()
        process.kill()


def test_a_pid_that_somebody_else_has_now_is_not_the_process() -> None:
    own = Identity.own()
    assert own.pid == os.getpid()
    assert not own.is_dead()
    assert replace(own, started="1").is_dead()


def test_nothing_is_known_of_another_machine() -> None:
    assert not replace(Identity.own(), machine="another", started="1").is_dead()


def test_an_identity_comes_back_from_its_values() -> None:
    assert Identity(**Identity.own().values()) == Identity.own()


def test_another_pid_namespace_is_another_machine() -> None:
    unshare = shutil.which("unshare")
    command = [sys.executable, "-c", "from hpcjobs.run_folder.process import machine_id; print(machine_id())"]
    wrap = [str(unshare), "--pid", "--fork", "--mount-proc"]
    if not unshare or subprocess.run([*wrap, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a pid namespace")
    inside = subprocess.run([*wrap, *command], capture_output=True, text=True, check=True).stdout.strip()
    assert inside.partition("/")[0] == machine_id().partition("/")[0], "the same boot"
    assert inside != machine_id()
