"""accelerate's own distributed test, with what its split of a tensor gives from 1.14 on.

Since then ranks beyond the rows get an empty part, where they got the last row again. The script that ships with
accelerate 1.14 and 1.15 still expects the row, and fails on more than two CPU processes under any launcher.
"""

from __future__ import annotations

import accelerate
import torch
from accelerate.state import AcceleratorState
from accelerate.test_utils.scripts import test_script
from accelerate.utils import gather_object
from packaging.version import Version


def split_tensor() -> None:
    """test_script.test_split_between_processes_tensor: only its first expectation differs."""
    state = AcceleratorState()
    data = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]])
    with state.split_between_processes(data) as results:
        torch.testing.assert_close(results, data[state.process_index : state.process_index + 1])
    state.wait_for_everyone()
    for count in (2 * state.num_processes, 2 * state.num_processes - 1):
        check_padded(state, torch.tensor([[i] for i in range(count)]))


def check_padded(state: AcceleratorState, data: torch.Tensor) -> None:
    """The parts are padded to equal lengths, and together begin with the data."""
    with state.split_between_processes(data, apply_padding=True) as results:
        assert len(results) == 2, f"rank {state.process_index} has {len(results)} rows"
        gathered = gather_object([row.tolist() for row in results])
    assert gathered[: len(data)] == data.tolist(), f"expected {data.tolist()}, got {gathered}"


if __name__ == "__main__":
    if Version(accelerate.__version__) >= Version("1.14"):
        test_script.test_split_between_processes_tensor = split_tensor
    test_script.main()
