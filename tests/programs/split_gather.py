"""Run by test_connector on several processes: split and gather data sets of awkward sizes."""

from __future__ import annotations

import json

from hpcjobs.connector import AccelerateConnector
from hpcjobs.distributed.group import leave_group


def main() -> None:
    connector = AccelerateConnector("tiny")
    sizes: dict[str, list[int]] = {}
    in_order, others_empty = True, True
    for count in (0, 1, 7, 97):
        data = [f"item {number}" for number in range(count)]
        mine = connector.split_dataset(data)
        gathered = connector.gather_results([(item, connector.state.process_index) for item in mine])
        lengths = connector.gather_results([len(mine)])
        if connector.is_main_process:
            sizes[str(count)] = lengths
            in_order = in_order and [item for item, _ in gathered] == data
        else:
            others_empty = others_empty and gathered == []
    if connector.is_main_process:
        print(json.dumps({"sizes": sizes, "in_order": in_order, "others_empty": others_empty}))
    leave_group()
    assert others_empty


if __name__ == "__main__":
    main()
