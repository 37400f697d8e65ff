"""Columns of every Arrow type, alone and within lists, maps and objects: three rows, the last the odd one."""

from __future__ import annotations

import decimal
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

D = decimal.Decimal
MARK = {b"hpcjobs": b"json"}
MASK = pa.array([False, True, False])
MIDDAY = 1_600_000_000
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
YEAR_10000, YEAR_1 = 253_402_300_800, -62_135_596_800
Named = Iterator[tuple[str, pa.Array]]


def places(values: list[int | None], kind: pa.DataType) -> pa.Array:
    """Dates, times and durations by what Arrow stores, whether it is one or not."""
    return pa.array(values, pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)


def dictionary(values: pa.Array, indices: tuple[int | None, ...] = (1, None, 0)) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int8()), values)


def runs(values: pa.Array) -> pa.Array:
    return pa.RunEndEncodedArray.from_arrays(pa.array([1, 2, 3], pa.int32()), values)


def extension(kind: pa.DataType, values: list[Any]) -> pa.Array:
    return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))


def numbers_and_texts() -> Named:
    yield "null", pa.nulls(3)
    yield "bool", pa.array([True, None, False])
    for bits in (8, 16, 32, 64):
        yield f"int{bits}", pa.array([1, None, -(2 ** (bits - 1))], getattr(pa, f"int{bits}")())
        yield f"uint{bits}", pa.array([1, None, 2**bits - 1], getattr(pa, f"uint{bits}")())
    for kind in (pa.float16(), pa.float32(), pa.float64()):
        yield str(kind), pa.array([-0.0, None, float("nan")], kind)
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        yield str(kind), pa.array(["a", None, "é\x00\U0001f600 long enough for a view"], kind)
    for kind in (pa.binary(), pa.large_binary(), pa.binary_view()):
        yield str(kind), pa.array([b"a", None, b"\xff long enough for a view"], kind)
    for width in (0, 3):
        yield f"binary[{width}]", pa.array([b"abc"[:width], None, b"\xff\x00\xfe"[:width]], pa.binary(width))
    for bits, digits in ((32, 9), (64, 18), (128, 38), (256, 76), (128, 1), (128, 10), (128, 19)):
        kind = getattr(pa, f"decimal{bits}")(digits, digits // 3)
        yield str(kind), pa.array([D(1), None, D("-" + "9" * (digits - digits // 3))], kind)


def times() -> Named:
    yield "date32", places([0, None, -5000], pa.date32())
    yield "date64", places([0, None, 86_400_000 * 3], pa.date64())
    for kind in (pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")):
        yield str(kind), places([0, None, 43_200 * PER_SECOND[kind.unit]], kind)
    for unit, scale in PER_SECOND.items():
        for zone in (None, "Europe/Paris" if unit != "ms" else "+05:30"):
            yield f"timestamp {unit} {zone}", places([0, None, MIDDAY * scale], pa.timestamp(unit, zone))
        yield f"duration {unit}", places([0, None, 12_345], pa.duration(unit))
    for zone in (None, "Europe/Paris"):
        yield f"single nanoseconds {zone}", places([0, None, MIDDAY * 10**9 + 1], pa.timestamp("ns", zone))
    yield "single nanoseconds", places([0, None, 123_456_789], pa.duration("ns"))


def layouts() -> Named:
    for name, values in {
        "texts": pa.array(["x", "y"]), "numbers": pa.array([5, 6]), "bytes": pa.array([b"5", b"6"]),
        "with a null": pa.array(["x", None]), "of nulls": pa.nulls(2), "of lists": pa.array([[5], [6, None]]),
        "of objects": pa.array([{"a": 5}, {"a": None}]),
    }.items():  # fmt: skip
        yield f"dictionary {name}", dictionary(values)
    yield "dictionary without values", dictionary(pa.array([], pa.string()), (None, None, None))
    yield "runs", runs(pa.array(["a", None, "b"]))
    yield "runs of lists", runs(pa.array([[1], None, [2, None]]))
    yield "runs of a dictionary", runs(pa.array(["a", None, "b"]).dictionary_encode())
    yield "empty object", pa.array([{}, None, {}], pa.struct([]))
    yield "arrow.json", extension(pa.json_(), ['{"a": 1}', None, "[1.0, null]"])
    yield "arrow.bool8", extension(pa.bool8(), [1, None, 0])
    yield "arrow.opaque", extension(pa.opaque(pa.int32(), "type", "vendor"), [1, None, 0])
    tensor = pa.fixed_shape_tensor(pa.float32(), [2])
    yield "arrow.fixed_shape_tensor", extension(tensor, [[1.0, 2.0], [0.5, 0.5], [3.0, 4.0]])


def marked() -> Named:
    """Texts of columns with the metadata `hpcjobs: json`."""
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        yield f"json in {kind}", pa.array(['{"a": 1}', None, "[NaN, 12, 12.0]"], kind)
    yield "json in a dictionary", dictionary(pa.array(['{"a": 1}', '"x"']))


def impossible_times() -> Named:
    yield "date32", places([0, None, 2_932_897], pa.date32())
    yield "early date32", places([0, None, -719_163], pa.date32())
    yield "date64", places([0, None, 2_932_897 * 86_400_000], pa.date64())
    yield "part of a date64", places([0, None, 86_400_001], pa.date64())
    for kind in (pa.timestamp("s"), pa.timestamp("ms", "Europe/Paris"), pa.timestamp("us", "UTC")):
        yield f"year 10000 {kind}", places([0, None, YEAR_10000 * PER_SECOND[kind.unit]], kind)
        yield f"year 0 {kind}", places([0, None, YEAR_1 * PER_SECOND[kind.unit] - 1], kind)
        yield f"end of time {kind}", places([0, None, 2**63 - 1], kind)
    yield "year 10000 in Tokyo", places([0, None, YEAR_10000 - 1], pa.timestamp("s", "Asia/Tokyo"))
    yield "year 0 in New York", places([0, None, YEAR_1], pa.timestamp("s", "America/New_York"))
    yield "zone", places([None, None, 5], pa.timestamp("s", "Mars/Olympus"))
    yield "not a time", places([0, None, -(2**63)], pa.timestamp("ns"))
    yield "long duration", places([0, None, 2**62], pa.duration("s"))
    for kind, odd in ((pa.time32("s"), 86_400), (pa.time32("ms"), -1), (pa.time64("us"), 10**17), (pa.time64("ns"), 1)):
        yield str(kind), places([0, None, odd], kind)


def impossible_texts() -> Named:
    for bad in (b"\xff", b"\xed\xa0\x80"):
        for kind, base in ((pa.string(), pa.binary()), (pa.large_string(), pa.large_binary())):
            yield f"{bad!r} in {kind}", pa.array([b"a", None, bad], base).view(kind)
        yield f"{bad!r} in a dictionary", dictionary(pa.array([b"a", bad]).view(pa.string()), (0, None, 1))
    yield "arrow.json", extension(pa.json_(), ['{"a": 1}', None, "{a"])


def no_json() -> Named:
    for text in ("{a", "", '["\\ud800"]', "[" * 300 + "]" * 300, "[" * 100_000, "1" * 5000, "\ufeff1"):
        yield f"{text[:12]!r}", pa.array(["1", None, text])


def unkeepable() -> Named:
    """Of types that no results.parquet holds, whatever the values."""
    yield "interval", pa.array([(1, 2, 3), None, (0, 0, 0)], pa.month_day_nano_interval())
    numbers, texts = pa.array([1, 2, 3]), pa.array(["a", "b", "c"])
    which = pa.array([0, 1, 0], pa.int8())
    yield "sparse union", pa.UnionArray.from_sparse(which, [numbers, texts])
    yield "dense union", pa.UnionArray.from_dense(which, pa.array([0, 0, 1], pa.int32()), [numbers, texts])
    yield "negative scale", pa.array([D("100"), None, D("-300")], pa.decimal128(7, -2))
    twins = [pa.field("a", pa.int64()), pa.field("a", pa.int64())]
    yield "twins", pa.StructArray.from_arrays([numbers, numbers], fields=twins)


def uuids() -> pa.Array:
    return extension(pa.uuid(), [uuid.UUID(int=5).bytes, None, uuid.UUID(int=7).bytes])


def within(array: pa.Array, mark: dict[bytes, bytes] | None = None) -> Iterator[tuple[str, pa.Array]]:
    """The column within other types, the last row's value in the last row."""
    inner = pa.field("item", array.type, metadata=mark)
    yield from _lists(array, inner)
    yield from _objects(array, inner)
    yield from _maps(array, inner)
    if array.type != pa.null():
        yield from _not_null(pa.concat_arrays([array.slice(2, 1)] * 3), inner.with_nullable(False))


def _lists(array: pa.Array, inner: pa.Field) -> Named:
    ends, long_ends = pa.array([0, 1, 2, 3], pa.int32()), pa.array([0, 1, 2, 3], pa.int64())
    kind = pa.list_(inner)
    lists = pa.ListArray.from_arrays(ends, array, type=kind)
    yield "list", lists
    yield "list that is null", pa.ListArray.from_arrays(ends, array, type=kind, mask=MASK)
    yield "empty list", pa.ListArray.from_arrays(pa.array([0, 0, 1, 3], pa.int32()), array, type=kind)
    yield "list of lists", pa.ListArray.from_arrays(ends, lists, type=pa.list_(pa.field("x", kind)))
    yield "large_list", pa.LargeListArray.from_arrays(long_ends, array, type=pa.large_list(inner))
    yield "list[1]", pa.FixedSizeListArray.from_arrays(array, type=pa.list_(inner, 1), mask=MASK)
    one, long_one = pa.array([1, 1, 1], pa.int32()), pa.array([1, 1, 1], pa.int64())
    yield "list_view", pa.ListViewArray.from_arrays(ends.slice(0, 3), one, array, type=pa.list_view(inner))
    kind = pa.large_list_view(inner)
    yield "large_list_view", pa.LargeListViewArray.from_arrays(long_ends.slice(0, 3), long_one, array, type=kind)


def none_in_lists_of_0(array: pa.Array) -> pa.Array:
    """Lists of the fixed size 0: pyarrow 26 writes files of them that it cannot read, or ends the process."""
    validity = pa.array([True, None, True]).is_valid()
    kind = pa.list_(array.type, 0)
    return pa.FixedSizeListArray.from_buffers(kind, 3, [validity.buffers()[1]], children=[array.slice(0, 0)])


def _objects(array: pa.Array, inner: pa.Field) -> Named:
    objects = pa.StructArray.from_arrays([array], fields=[inner])
    yield "object", objects
    yield "object that is null", pa.StructArray.from_arrays([array], fields=[inner], mask=MASK)
    odd = [inner.with_name("a.b"), pa.field("", pa.int64())]
    yield "odd keys", pa.StructArray.from_arrays([array, pa.array([1, 2, 3])], fields=odd, mask=MASK)
    ends = pa.array([0, 1, 2, 3], pa.int32())
    yield "objects", pa.ListArray.from_arrays(ends, objects, type=pa.list_(pa.field("x", objects.type)))
    lists = pa.ListArray.from_arrays(ends, array, type=pa.list_(inner))
    yield "list in an object", pa.StructArray.from_arrays([lists], fields=[pa.field("l", lists.type)], mask=MASK)


def _maps(array: pa.Array, inner: pa.Field) -> Named:
    ends, names = pa.array([0, 1, 2, 3], pa.int32()), pa.array(["k0", "k1", "k2"])
    kind = pa.map_(pa.string(), inner.with_name("value"))
    yield "map", pa.MapArray.from_arrays(ends, names, array, type=kind)
    yield "map that is null", pa.MapArray.from_arrays(ends, names, array, type=kind, mask=MASK)


def _not_null(array: pa.Array, inner: pa.Field) -> Named:
    """Whose values may not be null, and are only where what they are in is."""
    objects = pa.StructArray.from_arrays([array], fields=[inner], mask=MASK)
    yield "not null in an object", objects
    kind, ends = pa.list_(pa.field("x", objects.type, nullable=False)), pa.array([0, 1, 2, 3], pa.int32())
    whole = pa.StructArray.from_arrays([array], fields=[inner])
    yield "not null in objects", pa.ListArray.from_arrays(ends, whole, type=kind, mask=MASK)
    yield "not null in a list", pa.ListArray.from_arrays(ends, array, type=pa.list_(inner), mask=MASK)
    outer = pa.field("y", whole.type, nullable=False)
    yield "not null twice", pa.StructArray.from_arrays([whole], fields=[outer], mask=MASK)


def decoded(value: Any) -> Any:
    """What `to_pylist` gave, with each text as the JSON that it is, but for the keys of maps."""
    if isinstance(value, str):
        return json.loads(value)
    if isinstance(value, tuple):
        return value[0], decoded(value[1])
    if isinstance(value, list):
        return [decoded(one) for one in value]
    return {key: decoded(one) for key, one in value.items()} if isinstance(value, dict) else value


FINE: list[Callable[[], Named]] = [numbers_and_texts, times, layouts]
