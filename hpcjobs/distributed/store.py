"""The store in which ranks meet: keys and values in rank 0's process, for those who know the run's secret.

torch's TCPStore serves whoever connects: any user of the node could list its keys, read the addresses of the ranks and
write others. Here both sides prove first, by HMAC-SHA256 over the other's random number, that they have read the secret
from the run folder. The secret itself is never sent.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

_HELLO = b"hpcjobs1"
_RANDOM = 32
_GREETING_SECONDS = 20.0
_GREETINGS = 3  # a busy rank may be too late for one, and a stranger may hold all places for a while
# Connections that may be open without proof: a stranger who holds them open costs no more than these threads.
_STRANGERS = 128
_MOST_BYTES = 64 << 20


class RefusedError(ConnectionError):
    """The other side does not know the secret."""


class StoreServer:
    """Serves `listener` from threads for as long as the process lives."""

    def __init__(self, listener: socket.socket, secret: str) -> None:
        self._listener, self._secret = listener, secret.encode()
        self._values: dict[bytes, bytes] = {}
        self._changed = threading.Condition()
        self._unknown = threading.BoundedSemaphore(_STRANGERS)
        threading.Thread(target=self._accept, name="store", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:  # too many open files, or a peer that has gone again: the next one may do
                time.sleep(0.05)
                continue
            if self._unknown.acquire(blocking=False):
                threading.Thread(target=self._serve, args=(link,), name="store", daemon=True).start()
            else:
                link.close()

    def _serve(self, link: socket.socket) -> None:
        with link, contextlib.suppress(OSError, struct.error):
            try:
                _welcome(link, self._secret)
            finally:
                self._unknown.release()
            while True:
                name, *words = _receive(link)
                _send(link, self._answer(name.decode(), words))

    def _answer(self, name: str, words: list[bytes]) -> list[bytes]:
        """`[b"ok", value]`, or `[b"late"]` after the time that the request gives."""
        with self._changed:
            if name in ("get", "wait"):
                seconds, *keys = words
                here = self._changed.wait_for(lambda: all(key in self._values for key in keys), float(seconds))
                return [b"ok", self._values[keys[0]] if name == "get" else b""] if here else [b"late"]
            value = _CHANGES[name](self._values, words)
            self._changed.notify_all()
            return [b"ok", value]


def _set(values: dict[bytes, bytes], words: list[bytes]) -> bytes:
    values[words[0]] = words[1]
    return b""


def _add(values: dict[bytes, bytes], words: list[bytes]) -> bytes:
    values[words[0]] = b"%d" % (int(values.get(words[0], b"0")) + int(words[1]))
    return values[words[0]]


def _compare_set(values: dict[bytes, bytes], words: list[bytes]) -> bytes:
    """As TCPStore's: set if the value is the expected one; an absent key is set where nothing is expected."""
    key, expected, wanted = words
    if values.get(key, b"") == expected:
        values[key] = wanted
    return values.get(key, expected)


def _check(values: dict[bytes, bytes], words: list[bytes]) -> bytes:
    return b"1" if all(key in values for key in words) else b""


_CHANGES: dict[str, Callable[[dict[bytes, bytes], list[bytes]], bytes]] = {
    "set": _set, "add": _add, "compare_set": _compare_set, "check": _check,
    "delete_key": lambda values, words: b"1" if values.pop(words[0], None) is not None else b"",
    "num_keys": lambda values, words: b"%d" % len(values),
}  # fmt: skip


class StoreClient:
    """Requests to a StoreServer. Threads may ask at the same time: each request has a connection of its own meanwhile.

    Raises a RefusedError if the other side is not the run's own store, an OSError if it cannot be reached.
    """

    def __init__(self, address: str, port: int, secret: str) -> None:
        self._place, self._secret = (address, port), secret.encode()
        self._idle: list[socket.socket] = []

    def ask(self, name: str, *words: bytes, seconds: float | None = None) -> bytes:
        """The answer to one request; `seconds` is how long `get` and `wait` may wait. Raises a TimeoutError."""
        timing = [] if seconds is None else [repr(seconds).encode()]
        with self._link() as link:
            link.settimeout(_GREETING_SECONDS + (seconds or 60.0))
            _send(link, [name.encode(), *timing, *words])
            status, *answer = _receive(link)
        if status == b"late":
            raise TimeoutError(f"{b', '.join(words).decode(errors='replace')} was not there within {seconds:g} s")
        return answer[0]

    @contextlib.contextmanager
    def _link(self) -> Iterator[socket.socket]:
        link = self._idle.pop() if self._idle else self._connect()
        try:
            yield link
        except BaseException:  # what is left of the answer would be read as the next one's
            link.close()
            raise
        self._idle.append(link)

    def _connect(self) -> socket.socket:
        for _ in range(_GREETINGS - 1):
            with contextlib.suppress(TimeoutError, ConnectionError):
                return self._connect_once()
        return self._connect_once()

    def _connect_once(self) -> socket.socket:
        link = socket.create_connection(self._place, timeout=_GREETING_SECONDS)
        try:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _greet(link, self._secret)
        except BaseException:
            link.close()
            raise
        return link


def torch_store(client: StoreClient, timeout: float) -> Store:
    """`client` as a store for torch.distributed; `timeout` (seconds) is how long `get` and `wait` wait by default."""
    from torch._C._distributed_c10d import Store
    from torch.distributed import DistStoreError

    class OwnStore(Store):
        def set(self, key: str, value: str | bytes) -> None:
            client.ask("set", key.encode(), value.encode() if isinstance(value, str) else bytes(value))

        def get(self, key: str) -> bytes:
            return self._waited("get", [key], timedelta(seconds=timeout))

        def add(self, key: str, amount: int) -> int:
            return int(client.ask("add", key.encode(), b"%d" % amount))

        def compare_set(self, key: str, expected: str | bytes, wanted: str | bytes) -> bytes:
            pair = [value.encode() if isinstance(value, str) else bytes(value) for value in (expected, wanted)]
            return client.ask("compare_set", key.encode(), *pair)

        def delete_key(self, key: str) -> bool:
            return bool(client.ask("delete_key", key.encode()))

        def num_keys(self) -> int:
            return int(client.ask("num_keys"))

        def check(self, keys: Sequence[str]) -> bool:
            return bool(client.ask("check", *(key.encode() for key in keys)))

        def wait(self, keys: Sequence[str], limit: timedelta | None = None) -> None:
            self._waited("wait", keys, limit or timedelta(seconds=timeout))

        def has_extended_api(self) -> bool:
            return False

        def clone(self) -> Store:
            return self  # it has a connection for each thread that asks

        def _waited(self, name: str, keys: Sequence[str], limit: timedelta) -> bytes:
            try:
                return client.ask(name, *(key.encode() for key in keys), seconds=limit.total_seconds())
            except OSError as error:  # TimeoutError is one
                raise DistStoreError(str(error)) from error

    return OwnStore()


def _proof(secret: bytes, who: bytes, *randoms: bytes) -> bytes:
    return hmac.digest(secret, b"|".join([who, *randoms]), "sha256")


def _welcome(link: socket.socket, secret: bytes) -> None:
    """The server's side of the greeting: nothing is read beyond it before the proof is right."""
    link.settimeout(_GREETING_SECONDS)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    own = os.urandom(_RANDOM)
    link.sendall(_HELLO + own)
    theirs, proof = _exactly(link, _RANDOM), _exactly(link, 32)
    if not hmac.compare_digest(proof, _proof(secret, b"rank", own, theirs)):
        raise RefusedError("a connection without the run's secret")
    link.sendall(_proof(secret, b"store", theirs, own))
    link.settimeout(None)


def _greet(link: socket.socket, secret: bytes) -> None:
    """The rank's side of the greeting."""
    if _exactly(link, len(_HELLO)) != _HELLO:
        raise RefusedError("what answers there is not the run's store")
    theirs, own = _exactly(link, _RANDOM), os.urandom(_RANDOM)
    link.sendall(own + _proof(secret, b"rank", theirs, own))
    if not hmac.compare_digest(_exactly(link, 32), _proof(secret, b"store", own, theirs)):
        raise RefusedError("what answers there does not know the run's secret")


def _send(link: socket.socket, words: Sequence[bytes]) -> None:
    body = b"".join(struct.pack("!I", len(word)) + word for word in words)
    link.sendall(struct.pack("!I", len(body)) + body)


def _receive(link: socket.socket) -> list[bytes]:
    (size,) = struct.unpack("!I", _exactly(link, 4))
    if size > _MOST_BYTES:
        raise ConnectionError(f"a message of {size} bytes")
    body, words, at = _exactly(link, size), [], 0
    while at < size:
        (length,) = struct.unpack_from("!I", body, at)
        words.append(body[at + 4 : at + 4 + length])
        at += 4 + length
    return words


def _exactly(link: socket.socket, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = link.recv(min(size, 1 << 20))
        if not part:
            raise ConnectionError("the other side has closed the connection")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
