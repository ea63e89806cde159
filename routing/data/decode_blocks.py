"""Blocks of images decoded into a file at their place: by this process, or by processes of their own.

``python -m routing.data.decode_blocks`` is such a process: a line of JSON with the settings, then one per block; it
answers each with a line, and ends with its standard input, so that it never outlives who started it.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from routing.data.decode import DamagedImage, brightest
from routing.data.view import View
from routing.errors import InputError, RoutingError


@dataclass(frozen=True)
class Decoder:
    """Settings of all blocks: how files become pixels, and the file they go to (None: files are only checked)."""

    view: View
    target: str | None
    offset: int


@dataclass(frozen=True)
class Block:
    """``paths`` of neighbouring images; ``first`` is the number of the first one."""

    number: int
    first: int
    paths: Sequence[str]


@dataclass(frozen=True)
class Decoded:
    """A block that is done: the digest of its pixels, why an image is damaged by its number, the brightest wide grey.

    ``same`` are digests of the pixels of every image, empty for damaged ones.
    """

    number: int
    count: int
    digest: str
    damaged: dict[int, str]
    same: list[str]


def decode_block(decoder: Decoder, block: Block) -> Decoded:
    """Decode a block; what cannot be decoded is zeros in the file.

    Raises:
        InputError: a file cannot be read, whatever it holds.
        OSError: the pixels cannot be written.
    """
    view = decoder.view
    pixels = np.zeros((len(block.paths), 3, view.height, view.width), np.uint8)
    damaged: dict[int, str] = {}
    same = []
    for index, path in enumerate(block.paths):
        try:
            pixels[index] = view.read(path)
            same.append(hashlib.blake2b(pixels[index].tobytes(), digest_size=8).hexdigest())
        except DamagedImage as error:
            damaged[block.first + index] = str(error)
            same.append("")
    if decoder.target is not None:
        _write(decoder.target, decoder.offset + block.first * view.image_bytes, pixels.data.cast("B"))
    return Decoded(block.number, len(block.paths), hashlib.sha256(pixels.data).hexdigest(), damaged, same)


def brightest_of(paths: Sequence[str]) -> int:
    """Return the largest grey value among files with more than 8 bits, 0 without any."""
    return max((brightest(path) for path in paths), default=0)


class Workers:
    """Processes that decode blocks; with ``count`` 0 this process does, which needs no start."""

    def __init__(self, count: int) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-m", "routing.data.decode_blocks"]
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
            for _ in range(count)
        ]
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for process in self._processes:
            self._idle.put(process)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with suppress(OSError):
                    stream.close()  # type: ignore[union-attr]

    def decode(self, decoder: Decoder, blocks: Sequence[Block]) -> Iterator[Decoded]:
        """Yield the blocks as they are done, in any order; see ``decode_block``."""
        settings = {**asdict(decoder.view), "target": decoder.target, "offset": decoder.offset}
        if not self._processes:
            yield from (decode_block(decoder, block) for block in blocks)
            return
        for answer in self._ask({"do": "decode", **settings}, [asdict(block) for block in blocks]):
            answer["damaged"] = {int(number): why for number, why in answer["damaged"].items()}
            yield Decoded(**answer)

    def brightest(self, blocks: Sequence[Block]) -> Iterator[int]:
        """Yield the largest wide grey value of every block; see ``brightest_of``."""
        if not self._processes:
            yield from (brightest_of(block.paths) for block in blocks)
            return
        for answer in self._ask({"do": "brightest"}, [asdict(block) for block in blocks]):
            yield int(answer["value"])

    def _ask(self, settings: dict[str, Any], tasks: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        threads = ThreadPoolExecutor(len(self._processes))
        try:
            futures = [threads.submit(self._answer, {**settings, **task}) for task in tasks]
            for future in as_completed(futures):
                yield future.result()
        finally:
            threads.shutdown(cancel_futures=True)

    def _answer(self, task: dict[str, Any]) -> dict[str, Any]:
        process = self._idle.get()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(task).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = b""
        finally:
            self._idle.put(process)
        if not line:
            raise RoutingError("a process that decodes images has ended; is there enough memory? (dataset.workers 1)")
        answer: dict[str, Any] = json.loads(line)
        if "input_error" in answer:
            raise InputError(answer["input_error"])
        if "os_error" in answer:
            raise OSError(*answer["os_error"])
        return answer


def _write(path: str, offset: int, content: memoryview) -> None:
    """Write at a place of a file; not through a map, where a full disk would end the process."""
    handle = os.open(path, os.O_WRONLY)
    try:
        while content:
            written = os.pwrite(handle, content, offset)
            content, offset = content[written:], offset + written
    finally:
        os.close(handle)


def _serve() -> None:
    """Answer tasks until standard input ends; Ctrl-C is handled by the parent process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        task: dict[str, Any] = json.loads(line)
        try:
            answer = _done(task)
        except InputError as error:
            answer = {"input_error": str(error)}
        except OSError as error:
            answer = {"os_error": [error.errno, error.strerror, error.filename]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _done(task: dict[str, Any]) -> dict[str, Any]:
    if task.pop("do") == "brightest":
        return {"value": brightest_of(task["paths"])}
    block = Block(task.pop("number"), task.pop("first"), task.pop("paths"))
    target, offset = task.pop("target"), task.pop("offset")
    view = View(**{**task, "background": tuple(task["background"]), "fill": tuple(task["fill"])})
    return asdict(decode_block(Decoder(view, target, offset), block))


if __name__ == "__main__":
    _serve()
