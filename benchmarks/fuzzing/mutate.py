"""Corrupt files: by their bytes, or by the structure of their format."""

from __future__ import annotations

import io
import json
import pickle  # nosec B403  # creates hostile pickles; only the program reads them
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

_DEEP = 100_000
TOKENS = (
    b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"[" * _DEEP, b'{"a":' * _DEEP, b'"\\ud800"', b"\0", b"\xef\xbb\xbf",
    b"\xff\xfe", b"null", b"../../../x", b"/etc/passwd", b"C:\\x", b"\x1b[2J", b"\r\n", b",", b'"', b"," * 100_000,
    b"a: &a [*a, *a]", b"*a", b"!!python/object/apply:os.system ['touch /tmp/x']", b"!!timestamp 2001-99-99",
    b"? ? ? ?", b"PK\x03\x04", b"PK\x05\x06", b"\xff\xd8\xff\xe0", b"\xff\xda", b"%!PS-Adobe-3.0 EPSF-3.0\n",
    b"\x89PNG\r\n\x1a\n", b"PAR1", b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\0" * 8, b"\x80\x02cos\nsystem\n",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 2, 10**17, -(10**17), 10**30, 0.5, 1e308, -1e-308, "", "x" * 5000, "\0", "\ud800", "1",
    "../../x", "/etc/passwd", "nan", "ISIC_0000000", "{{ 7 * 7 }}", "$\\frac{1}{", "\x1b[2J", [], {}, [[]], [None] * 3,
    {"": None}, ["a", 1], {"kind": "x"},
)  # fmt: skip


class Evil:
    """An object whose pickle runs a command when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Call ``os.system`` on load."""
        import os

        return os.system, ("touch fuzzed",)


def mutate(data: bytes, kind: str, others: list[bytes], rng: random.Random) -> bytes:
    """Corrupt ``data`` of a ``kind`` (file suffix) once or a few times, partly with bytes of ``others``."""
    by_format = _BY_FORMAT.get(kind)
    try:
        if by_format is not None and rng.random() < 0.6:
            data = by_format(data, rng)
            if rng.random() < 0.8:
                return data
    except (ValueError, TypeError, LookupError, RecursionError, struct.error, pa.ArrowException, zipfile.BadZipFile):
        pass  # no longer valid for its format: corrupt its bytes instead
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        data = rng.choice(_BY_BYTES)(data, others, rng)
    return data


def _flip(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return rng.choice((data[:start], data[start:end], data[:start] + data[end:]))


def _repeat(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[start:end] * rng.choice((1, 2, 50) if end - start < 10_000 else (1,)) + data[end:]


def _insert(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    token = rng.choice(TOKENS) if rng.random() < 0.8 else rng.randbytes(rng.randrange(1, 64))
    return data[:at] + token + data[at + rng.choice((0, len(token))) :]


def _number(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    at, width = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 8))
    value = rng.choice((0, 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1, rng.getrandbits(8 * width)))
    return data[:at] + value.to_bytes(width, rng.choice(("little", "big"))) + data[at + width :]


def _splice(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    other = rng.choice(others) if others else data
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


_BY_BYTES: tuple[Callable[[bytes, list[bytes], random.Random], bytes], ...] = (
    _flip, _flip, _cut, _repeat, _insert, _insert, _number, _splice,
)  # fmt: skip


def change_tree(tree: Any, rng: random.Random) -> Any:
    """Replace, delete, duplicate or move one value of a tree of plain values."""
    locations: list[tuple[Any, Any]] = []
    pending = [tree]
    while pending:
        node = pending.pop()
        keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
        locations += [(node, key) for key in keys]
        pending += [node[key] for key in keys]
    if not locations:
        return rng.choice(VALUES)
    node, key = rng.choice(locations)
    action = rng.randrange(5)
    if action == 0:
        del node[key]
    elif action == 1 and isinstance(node, dict):
        node[rng.choice(("", "a", "__class__", "../x", "0", "\0"))] = node.pop(key)
    elif action == 2:
        other, at = rng.choice(locations)
        node[key] = json.loads(json.dumps(other[at])) if at in other or isinstance(other, list) else None
    else:
        node[key] = rng.choice(VALUES)
    return tree


def _json(data: bytes, rng: random.Random) -> bytes:
    return json.dumps(change_tree(json.loads(data), rng)).encode()


def _jsonl(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    action = rng.randrange(4)
    if action == 0:
        del lines[at]
    elif action == 1:
        lines.insert(at, rng.choice(lines))
    else:
        lines[at] = _json(lines[at], rng) + b"\n"
    return b"".join(lines)


def _yaml(data: bytes, rng: random.Random) -> bytes:
    return yaml.safe_dump(change_tree(yaml.safe_load(data), rng)).encode(errors="surrogatepass")


def _csv(data: bytes, rng: random.Random) -> bytes:
    rows = [line.split(b",") for line in data.split(b"\n")]
    row = rng.choice(rows)
    row[rng.randrange(len(row))] = rng.choice((*TOKENS, b"", b"-1", b"2", b"1e5", b"unknown", b"ISIC_9000001"))
    return b"\n".join(b",".join(row) for row in rows)


def _parquet(data: bytes, rng: random.Random) -> bytes:
    table = pq.read_table(io.BytesIO(data))
    at = rng.randrange(table.num_columns)
    name, column = table.column_names[at], table.column(at)
    action = rng.randrange(6)
    if action == 0:
        table = table.remove_column(at)
    elif action == 1:
        table = table.slice(rng.randrange(table.num_rows + 1), rng.randrange(table.num_rows + 1))
    elif action == 2:
        table = table.append_column(name, column)
    elif action == 3:
        table = pa.concat_tables([table, table])
    elif action == 4:
        table = table.replace_schema_metadata({b"pandas": rng.choice(TOKENS), b"ARROW:schema": rng.randbytes(50)})
    else:
        table = table.set_column(at, name, _column(table.num_rows, rng))
    file = io.BytesIO()
    pq.write_table(table, file, store_schema=rng.random() < 0.5, compression=rng.choice(("snappy", "zstd", "none")))
    return file.getvalue()


def _column(rows: int, rng: random.Random) -> Any:
    """Create an Arrow column of one type, possibly with hostile values."""
    numbers = np.random.default_rng(rng.getrandbits(32)).integers(-(2**62), 2**62, rows)
    text = rng.choice(["", "x" * 5000, "\0", "../../x", "ISIC_0000000", "1", "{{ 1 }}", "\x1b[2J"])
    columns: tuple[Callable[[], Any], ...] = (
        lambda: pa.array(numbers),
        lambda: pa.array(numbers.astype(np.float64)),
        lambda: pa.array([float("nan")] * rows, pa.float32()),
        lambda: pa.array([float("inf")] * rows, pa.float32()),
        lambda: pa.array([text] * rows, pa.string()),
        lambda: pa.array([text, None] * (rows // 2) + [None] * (rows % 2), pa.string()),
        lambda: pa.array([b"\xff"] * rows, pa.binary()),
        lambda: pa.array([[1, 2]] * rows),
        lambda: pa.array([{"a": 1}] * rows),
        lambda: pa.array([True] * rows),
        lambda: pa.nulls(rows),
        lambda: pa.array([text] * rows).dictionary_encode(),
        lambda: pa.array(numbers.astype("datetime64[ns]")),
        lambda: pa.array(np.abs(numbers) % 3, pa.int8()),
    )
    return rng.choice(columns)()


def _zip(data: bytes, rng: random.Random) -> bytes:
    names = (
        "../x", "/x", "C:\\x", "..\\x", "a/../../x", "CON", "a\0b", "x" * 300, "a/" * 3000 + "b", "Data", "Data/",
        "Data/x\n", "\u202ex", "DATA/ISIC_0000001.JPG", "", ".", "a//b", "Data/ISIC_0000001.jpg/x",
    )  # fmt: skip
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", rng.choice((0, 8, 12, 14))) as new:
        for info in old.infolist():
            new.writestr(info, old.read(info))
        info = zipfile.ZipInfo(rng.choice(("Data/x.jpg", *names)) or "x")
        info.filename = rng.choice((info.filename, *names))
        info.external_attr = rng.choice((0, 0o120777 << 16, 0o010644 << 16, 0o100644 << 16))
        info.compress_type = rng.choice((0, 8, 12, 14))
        new.writestr(info, rng.choice((b"", b"x", bytes(3_000_000), b"/etc/passwd")))
    return out.getvalue()


def _safetensors(data: bytes, rng: random.Random) -> bytes:
    (length,) = struct.unpack("<Q", data[:8])
    header = json.dumps(change_tree(json.loads(data[8 : 8 + length]), rng)).encode()
    claimed = rng.choice((len(header), len(header), len(header), 2**63, 2**32, 0, len(header) + 1))
    return struct.pack("<Q", claimed) + header + data[8 + length :]


def _pt(data: bytes, rng: random.Random) -> bytes:
    evil = rng.choice(
        (pickle.dumps(Evil()), pickle.dumps({"state_dict": Evil()}), pickle.dumps([]), rng.choice(TOKENS))
    )
    if rng.random() < 0.2:
        return evil
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", rng.choice((0, 8))) as new:
        target = rng.choice(old.namelist())
        for info in old.infolist():
            content = old.read(info)
            if info.filename.endswith("data.pkl") and rng.random() < 0.5:
                content = rng.choice((evil, mutate(content, "", [], rng)))
            elif info.filename == target:
                content = mutate(content, "", [], rng) if rng.random() < 0.5 else bytes(2**24)
            new.writestr(info.filename, content)
    return _with_wide_end(out.getvalue()) if rng.random() < 0.9 else out.getvalue()


def _with_wide_end(archive: bytes) -> bytes:
    """Add the 64-bit end record that PyTorch writes; without it a file is refused at once."""
    end = archive[-22:]
    count, size, start = end[10:12], end[12:16], end[16:20]
    wide = b"".join(part.ljust(8, b"\0") for part in (count, count, size, start))
    end64 = b"PK\x06\x06" + struct.pack("<Q12x", 44) + wide
    return archive[:-22] + end64 + b"PK\x06\x07" + struct.pack("<4xQI", len(archive) - 22, 1) + end


def _events(data: bytes, rng: random.Random) -> bytes:
    """Corrupt one record of TensorBoard's events, with correct checksums."""
    records, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        records.append(data[at + 12 : at + 12 + length])
        at += length + 16
    number = rng.randrange(len(records))
    records[number] = mutate(records[number], "", records, rng)
    claimed = [len(record) for record in records]
    if rng.random() < 0.2:
        claimed[number] = rng.choice((0, 2**31, 2**62, 2**64 - 1, rng.getrandbits(64)))
    return b"".join(map(_record, records, claimed))


def _record(content: bytes, length: int) -> bytes:
    head = struct.pack("<Q", length)
    return head + struct.pack("<I", masked_crc32c(head)) + content + struct.pack("<I", masked_crc32c(content))


_BY_FORMAT: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "json": _json, "jsonl": _jsonl, "yaml": _yaml, "csv": _csv, "parquet": _parquet, "zip": _zip,
    "safetensors": _safetensors, "pt": _pt, "host": _events,
}  # fmt: skip
