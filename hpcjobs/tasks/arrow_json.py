"""Whether Arrow's JSON parser has read a block of lines as Python's would.

Told all types, it refuses a key that it does not know, a key that stands twice, a text among numbers and a fraction
among integers. What it takes without a word: a whole number among fractions, 12 for 12.0; an object without one of its
keys, as if it were null; keys in another order. Each is looked for here, and where it may be so Python reads the block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from hpcjobs.run_folder.json_columns import is_json, is_list

_ESCAPED_KEY = re.compile(rb'\\[^"]*"\s*:')
_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")


def has_no_json(schema: pa.Schema) -> bool:
    """Whether Arrow's parser knows all the types."""
    return not any(is_json(field) for field in schema)


def reads_as_python(block: bytes, table: pa.Table) -> bool:
    """Whether the table surely has what `json.loads` gives of each line; a null may be a column that is not there."""
    if _HALF_PAIR.search(block) and not _all_unicode(table):
        return False
    if not all(map(_all_keys, table.columns)):
        return False
    named = zip(table.column_names, table.columns, strict=True)
    doubtful = {key for name, column in named for key, part in _floats(name, column) if _whole(part)}
    structs = any(_has_struct(field.type) for field in table.schema)
    if not structs and not doubtful:
        return True
    if None in doubtful or _ESCAPED_KEY.search(block):
        return False
    return not any(_integer(block, key) for key in doubtful) and (not structs or _in_order(block, table.schema))


def _all_unicode(table: pa.Table) -> bool:
    try:
        table.validate(full=True)
    except pa.ArrowException:
        return False
    return True


def _all_keys(column: pa.ChunkedArray) -> bool:
    """Whether no key of a nested object is null: it might as well be absent."""
    if is_list(column.type):
        return _all_keys(pc.list_flatten(column))
    if not pa.types.is_struct(column.type):
        return True
    return all(child.null_count == column.null_count and _all_keys(child) for child in column.flatten())


def _has_struct(kind: pa.DataType) -> bool:
    return _has_struct(kind.value_type) if is_list(kind) else bool(pa.types.is_struct(kind))


def _floats(key: str, column: pa.ChunkedArray, listed: bool = False) -> Iterator[tuple[str | None, pa.ChunkedArray]]:
    """The columns of fractions on any level, with their keys; None for elements of a list."""
    if is_list(column.type):
        yield from _floats(key, pc.list_flatten(column), listed=True)
    elif pa.types.is_struct(column.type):
        for field, child in zip(column.type, column.flatten(), strict=True):
            yield from _floats(field.name, child)
    elif pa.types.is_float64(column.type):
        yield None if listed else key, column


def _whole(column: pa.ChunkedArray) -> bool:
    """Whether some number is whole, as one that is written without a fraction is."""
    return bool(pc.any(pc.equal(pc.floor(column), column)).as_py())


def _key(name: str) -> bytes:
    return b'"' + re.escape(name.encode()) + rb'"\s*:'


def _plain(name: str) -> bool:
    """Whether JSON writes the key as it is, if nothing in it is escaped; `","` may also be the end of two texts."""
    return name.isprintable() and not set('"\\,:') & set(name)


def _integer(block: bytes, name: str | None) -> bool:
    """Whether an integer may stand behind the key, on any level."""
    return name is None or not _plain(name) or bool(re.search(_key(name) + rb"\s*-?\d+(?![\d.eE])", block))


def _in_order(block: bytes, schema: pa.Schema) -> bool:
    """Whether the keys of all nested objects stand in the order of their type.

    Inside a valid line a quoted text before a colon is a key. Each key names one place of the schema, so that the keys
    of the nested objects, one after the other, follow the type's own pattern only if those of each object do.
    """
    nested = [name for field in schema for name in _keys(field.type)]
    names = [*schema.names, *nested]
    if len(set(names)) < len(names) or not all(map(_plain, names)):
        return False
    letters = {name.encode(): chr(0x10000 + number) for number, name in enumerate(nested)}
    found = re.findall(rb'"(' + b"|".join(map(re.escape, letters)) + rb')"\s*:', block)
    text = "".join(map(letters.__getitem__, found))
    kinds = [_pattern(field.type, letters) for field in schema if _has_struct(field.type)]
    return re.fullmatch(f"(?:{'|'.join(kinds)})*", text) is not None


def _keys(kind: pa.DataType) -> list[str]:
    """All keys of the objects within a type."""
    if is_list(kind):
        return _keys(kind.value_type)
    return [name for field in kind for name in (field.name, *_keys(field.type))] if pa.types.is_struct(kind) else []


def _pattern(kind: pa.DataType, letters: dict[bytes, str]) -> str:
    """The keys of one value in their order."""
    if is_list(kind):
        return f"(?:{inner})*" if (inner := _pattern(kind.value_type, letters)) else ""
    if not pa.types.is_struct(kind):
        return ""
    return "(?:" + "".join(letters[field.name.encode()] + _pattern(field.type, letters) for field in kind) + ")?"
