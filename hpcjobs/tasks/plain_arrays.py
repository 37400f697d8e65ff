"""Arrow's columns in plain layouts with the same Python values: what inputs/ and results.parquet hold everywhere.

Dictionaries, runs, views and lists of a fixed size become values and lists; seconds, which Parquet does not have,
become milliseconds; an object without keys, for which Parquet has no place, becomes JSON text; whatever may not be null
may be, since the parts of an object that is null are. Arrow's own casts are not used for nested types: of views they
give arrays that crash the process which reads them, and Parquet's writer ends the process at lists of the fixed size 0
(pyarrow 26).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hpcjobs.run_folder.json_columns import is_json, json_field

_SAME_VALUES = {
    "string_view": pa.large_string(), "binary_view": pa.large_binary(), "fixed_size_binary[0]": pa.binary(),
    "date64[ms]": pa.date32(), "time32[s]": pa.time32("ms"),
}  # fmt: skip
# Arrow's own types whose Python values are not those that they are stored as.
_OWN_VALUES = {"arrow.bool8": pa.bool_(), "arrow.uuid": pa.uuid()}


def plain_field(field: pa.Field) -> pa.Field:
    """The field of a column whose Python values are those of `field`."""
    made = field.with_type(_plain(field.type)).with_nullable(True)
    return json_field(field.name) if _is_empty_object(made.type) or is_json(field) or is_json(made) else made


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _plain(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return _OWN_VALUES.get(kind.extension_name) or _plain(kind.storage_type)
    if pa.types.is_struct(kind):
        return pa.struct([plain_field(field) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(plain_field(kind.key_field).with_nullable(False), plain_field(kind.item_field))
    if pa.types.is_list(kind):
        return pa.list_(plain_field(kind.value_field))
    if _is_any_list(kind):
        return pa.large_list(plain_field(kind.value_field))
    if pa.types.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    return _SAME_VALUES.get(str(kind), kind)


def _is_any_list(kind: pa.DataType) -> bool:
    types = pa.types
    views = types.is_list_view(kind) or types.is_large_list_view(kind)
    return bool(views or types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_empty_object(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind)) and not kind.num_fields


def plain_array(array: pa.Array, field: pa.Field) -> pa.Array:
    """The same values as a column of `field`, which `plain_field` gave."""
    kind = array.type
    if kind == field.type and not pa.types.is_nested(kind):
        return array
    if pa.types.is_dictionary(kind):
        return plain_array(array.dictionary, field).take(array.indices)
    if pa.types.is_run_end_encoded(kind):
        places = np.searchsorted(np.asarray(array.run_ends), np.arange(len(array)) + array.offset, side="right")
        return plain_array(array.values, field).take(pa.array(places))
    if isinstance(kind, pa.BaseExtensionType):
        return plain_array(array.storage, field)
    if _is_empty_object(kind):
        return pc.if_else(array.is_valid(), "{}", pa.scalar(None, pa.string()))
    if pa.types.is_nested(kind):
        return _nested(array, field.type)
    return array.cast(field.type)


def _nested(array: pa.Array, kind: pa.DataType) -> pa.Array:
    mask = array.is_null()
    if pa.types.is_struct(kind):
        parts = [plain_array(part, field) for part, field in zip(array.flatten(), kind, strict=True)]
        return pa.StructArray.from_arrays(parts, fields=list(kind), mask=mask)
    if pa.types.is_map(kind):
        places, keys, items = map_parts(array)
        made = plain_array(keys, kind.key_field), plain_array(items, kind.item_field)
        return pa.MapArray.from_arrays(places, *made, type=kind, mask=mask)
    values, of = plain_array(array.flatten(), kind.value_field), pa.ListArray
    if pa.types.is_large_list(kind):
        of = pa.LargeListArray
    return of.from_arrays(_places(array, kind), values, type=kind, mask=mask)


def _places(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Where each list begins in the flattened values, and where the last one ends."""
    lengths = np.asarray(pc.fill_null(pc.list_value_length(array), 0))
    width = pa.int64() if pa.types.is_large_list(kind) else pa.int32()
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]), width)


def map_parts(array: pa.Array) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Where each map begins, and all keys and values."""
    places = np.asarray(array.offsets)
    start, stop = int(places[0]), int(places[-1])
    keys, items = array.keys.slice(start, stop - start), array.items.slice(start, stop - start)
    return pa.array(places - start, pa.int32()), keys, items
