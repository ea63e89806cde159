"""Decoded images on disk: built by processes, gone on with after a kill, known again, listed and removed."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from routing.bench import images
from routing.cli import main
from routing.config.run import RunConfig
from routing.config.section import DatasetSection
from routing.data import Split, batches, files, store
from routing.data.decode_blocks import Block, Decoder, Workers, decode_block
from routing.data.feeding import AHEAD, fed, sent_ahead
from routing.data.images import FileImages
from routing.data.view import View
from routing.errors import InputError, RoutingError
from routing.training.checkpoint import identity


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROUTING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 320 different images."""
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir()
        for index in range(160):
            small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
            small.resize((200, 150), Image.Resampling.BILINEAR).save(root / name / f"{index:03}.jpg")
    return root


def section(root: Path, **keys: Any) -> DatasetSection:
    values = {f"dataset.{key}": value for key, value in {"input_size": 224, **keys}.items()}
    return RunConfig.from_dict({"dataset.name": "image_folder", "dataset.root": str(root), **values}).dataset


LOAD = """
import sys
from routing.config.run import RunConfig
keys = {"name": "image_folder", "root": sys.argv[1], "input_size": 224, "workers": 2}
RunConfig.from_dict({"dataset": keys}).dataset.load()
"""


@pytest.mark.slow
def test_processes_of_one_machine_build_once(photographs: Path, cache: Path) -> None:
    """The others wait for the first, and read nothing themselves: trials that start at once on a node."""
    running = [
        subprocess.Popen([sys.executable, "-c", LOAD, str(photographs)], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert sum("images take" in text for text in said) == 1
    assert len(list(cache.glob("*/images.npy"))) == 1


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_sixteen_bits_of_every_kind_of_png_keep_their_high_ones(channels: int, tmp_path: Path) -> None:
    """Grey with alpha, RGB, RGBA; grey alone may hold fewer bits, which its data set decides."""
    pixels = np.random.default_rng(0).integers(0, 2**16, (5, 7, channels))
    if channels != 3:
        pixels[..., -1] = 2**16 - 1
    kind = {2: 4, 3: 2, 4: 6}[channels]  # of PNG's header
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    pieces = {b"IHDR": struct.pack(">IIBBBBB", 7, 5, 16, kind, 0, 0, 0), b"IDAT": zlib.compress(lines), b"IEND": b""}
    content = b"".join(
        struct.pack(">I", len(piece)) + name + piece + struct.pack(">I", zlib.crc32(name + piece))
        for name, piece in pieces.items()
    )
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    colours = pixels[..., :3] if channels > 2 else pixels[..., :1].repeat(3, axis=2)
    np.testing.assert_array_equal(View(5, 7).read(str(tmp_path / "deep.png")), (colours >> 8).transpose(2, 0, 1))


def test_a_killed_build_is_gone_on_with(photographs: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen([sys.executable, "-c", LOAD, str(photographs)])
    deadline = time.monotonic() + 60
    journals: list[Path] = []
    while time.monotonic() < deadline:
        journals = list(cache.glob("*.part/blocks.jsonl"))
        if journals and "digest" in journals[0].read_text():
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = sum('"digest"' in line for line in journals[0].read_text().splitlines())
    with journals[0].open("a") as journal:
        journal.write('{"number": 5, "dige')  # a line that the kill cut off
    assert 1 <= done < 6
    decoded: list[str] = []
    real = View.read
    monkeypatch.setattr(store, "_FEW", 10_000)  # in this process, where it can be watched
    monkeypatch.setattr(View, "read", lambda self, path: decoded.append(path) or real(self, path))  # type: ignore[func-returns-value]
    data = section(photographs).load()
    assert 320 - 56 * done <= len(decoded) <= 320 - 32 * done  # blocks of 55 images; the last has 45
    whole = data.identity()
    assert not list(cache.glob("*.part"))
    shutil.rmtree(cache)
    assert section(photographs).load().identity() == whole


def test_processes_decode_what_one_does_and_end_with_it(photographs: Path, tmp_path: Path) -> None:
    paths = [str(path) for path in sorted((photographs / "cat").iterdir())[:6]]
    (tmp_path / "broken.png").write_bytes(b"no image")
    blocks = [Block(0, 0, paths[:3]), Block(1, 3, [*paths[3:], str(tmp_path / "broken.png")])]
    view = View(32, 32, bit_depth=16)
    with Workers(2) as workers:
        found = sorted(workers.decode(Decoder(view, None, 0), blocks), key=lambda block: block.number)
        processes = list(workers._processes)
        with pytest.raises(InputError, match=r"nowhere\.png: cannot be read: No such file"):
            list(workers.decode(Decoder(view, None, 0), [Block(0, 0, [str(tmp_path / "nowhere.png")])]))
        processes[0].kill()
        processes[1].kill()
        with pytest.raises(RoutingError, match="a process that decodes images has ended"):
            list(workers.decode(Decoder(view, None, 0), blocks))
    assert found == [decode_block(Decoder(view, None, 0), block) for block in blocks]
    assert list(found[1].damaged) == [6]
    assert all(process.poll() is not None for process in processes)


def test_another_seed_and_split_need_no_second_copy(photographs: Path, cache: Path) -> None:
    first = section(photographs, input_size=16).load()
    other = section(photographs, input_size=16, seed=1, val_fraction=0.3).load()
    assert len(list(cache.glob("image_folder-*/images.npy"))) == 1
    assert first.identity() != other.identity()
    assert (len(first["val"]), len(other["val"])) == (32, 96)


def test_a_disk_without_room_is_one_line(photographs: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(photographs)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(RoutingError, match=rf"{cache}: 320 images take 48.2 MB, and the disk has 1 MB left; set"):
        section(photographs).load()
    assert section(photographs, storage="files", input_size=16).load()["train"].images[0].shape == (3, 16, 16)


def test_a_disk_without_a_byte_is_one_line_too(photographs: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(photographs)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
    with pytest.raises(RoutingError, match=rf"{cache}: 320 images take 48.2 MB, and the disk has 0 bytes left; set"):
        section(photographs).load()


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs posix_fallocate")
def test_a_build_goes_on_after_its_file_could_not_be_made(photographs: Path, cache: Path) -> None:
    """A quota is met after the free space was asked for; the short file it leaves is not taken for a whole one."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(RoutingError, match=r"cannot be written: .*File too large; set ROUTING_CACHE"):
            section(photographs, input_size=16).load()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (left,) = cache.glob("*.part/images.npy")
    assert left.stat().st_size < 320 * 3 * 16 * 16
    found = section(photographs, input_size=16).load()
    other = section(photographs, input_size=16, storage="files").load()
    rows = torch.arange(len(found["train"]))
    assert torch.equal(found["train"].images[rows], other["train"].images[rows])


def test_an_entry_that_lost_a_file_is_built_again(photographs: Path, cache: Path) -> None:
    section(photographs, input_size=16).load()
    (digests,) = cache.glob("*/digests.txt")
    before = digests.read_text()
    digests.unlink()
    section(photographs, input_size=16).load()
    assert digests.read_text() == before


def settle(root: Path) -> None:
    """Make folders and files old, as those of a data set are."""
    for path in [*root.rglob("*"), root]:
        os.utime(path, (1_600_000_000, 1_600_000_000))


def test_a_folder_is_listed_once_and_changes_are_noticed(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(photographs, root)
    settle(root)
    first = files.list_images(root).files()
    with monkeypatch.context() as patch:
        patch.setattr(files, "_walk", lambda *args: pytest.fail("listed again"))
        again = files.list_images(root).files()
        assert again.digest() == first.digest()
        (root / "cat" / "000.jpg").write_bytes(b"rewritten in place: its folder's time stays")
        assert files.list_images(root).files().digest() != first.digest()
    (root / "dog" / "000.jpg").unlink()
    assert len(files.list_images(root).files()) == 319
    (root / "dog" / "sub").mkdir()
    shutil.copy(root / "dog" / "001.jpg", root / "dog" / "sub" / "000.jpg")
    found = files.list_images(root).files()
    assert "dog/sub/000.jpg" in found.paths


def test_files_of_a_slow_disk_are_asked_for_together(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = files.list_images(photographs).files()
    monkeypatch.setattr(files, "_SLOW_SECONDS", 0.0)
    threads: set[int] = set()
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **keys: (threads.add(threading.get_ident()), real(path, **keys))[1])
    assert files.list_images(photographs).files().digest() == quick.digest()
    assert len(threads) > 1


def test_order_of_streamed_batches_is_that_of_the_epoch(photographs: Path) -> None:
    data, streamed = (
        section(photographs, input_size=16),
        section(photographs, input_size=16, storage="files", workers=2),
    )
    held, read = data.load(), streamed.load()
    lazy = read["train"].images
    assert isinstance(lazy, FileImages)
    order = torch.randperm(len(held["train"]), generator=torch.Generator().manual_seed(3))
    for _ in range(2):  # the workers stay for the second epoch
        pairs = zip(
            batches(held["train"], held.info, 32, order), batches(read["train"], read.info, 32, order), strict=True
        )
        for one, other in pairs:
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.targets, other.targets)
    next(batches(read["train"], read.info, 32, order))  # left early
    assert torch.equal(torch.cat(list(lazy.split(100))), held["train"].images[:])


def test_batches_are_sent_ahead_in_order_and_errors_come_through() -> None:
    pixels = torch.arange(40, dtype=torch.uint8).view(10, 1, 2, 2)
    taken: list[int] = []

    def read() -> Any:
        for index in range(10):
            taken.append(index)
            yield pixels[index : index + 1]

    found = sent_ahead(read(), torch.device("cpu"))
    assert torch.equal(torch.cat(list(found)), pixels)
    taken.clear()
    early = sent_ahead(read(), torch.device("cpu"))
    next(early)
    time.sleep(0.3)
    assert len(taken) <= AHEAD + 2  # what is read ahead is bounded
    early.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "batches"]

    def fail() -> Any:
        yield pixels[:1]
        raise InputError("a file has gone")

    failing = sent_ahead(fail(), torch.device("cpu"))
    next(failing)
    with pytest.raises(InputError, match="a file has gone"):
        next(failing)


def test_pixels_stay_on_the_host_where_they_are_to(photographs: Path) -> None:
    meta = torch.device("meta")  # a device that is not the host, on every machine
    split = section(photographs, input_size=16, on_device=False).load()["train"]
    moved = split.to(meta)
    assert moved.images is split.images
    assert moved.targets.device == meta
    whole: Split = section(photographs, input_size=16, on_device=True).load()["train"].to(meta)
    assert whole.images.device == meta
    sent = list(fed(split.images, torch.arange(len(split)).split(100), meta))
    assert [(part.dtype, part.device, len(part)) for part in sent] == [
        (torch.uint8, meta, count) for count in (100, 100, 56)
    ]


def test_the_cache_is_listed_pruned_and_cleared(
    photographs: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    section(photographs, input_size=16).load()
    section(photographs, input_size=32).load()
    RunConfig.from_dict({"dataset": {"num_train": 20, "num_val": 10, "num_test": 10}}).dataset.load()
    (old,) = (path for path in cache.glob("image_folder-*") if path.is_dir() and "16" in str(size_of(path)))
    os.utime(old / "used", (1_600_000_000, 1_600_000_000))
    assert main(["cache"]) == 0
    listed = capsys.readouterr().out
    assert "16 x 16" in listed
    assert "digits" in listed
    assert str(photographs) in listed
    assert "3 entries" in listed
    assert main(["cache", "--prune", "30d"]) == 0
    assert "removed 1 entries" in capsys.readouterr().out
    assert not old.exists()
    assert main(["cache", "--prune", "soon"]) == 2
    assert main(["cache", "--clear"]) == 0
    assert "removed 2 entries" in capsys.readouterr().out
    assert not list(cache.glob("*/images.npy"))
    assert len(section(photographs, input_size=32).load()["val"]) == 32


def size_of(entry: Path) -> Any:
    import json

    return json.loads((entry / "entry.json").read_text())["size"]


def test_a_folder_is_looked_at_before_training(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "set"
    for split, part in (("train", slice(0, 30)), ("test", slice(30, 40))):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for path in sorted((photographs / name).iterdir())[part]:
                shutil.copy(path, root / split / name)
    shutil.copy(root / "train" / "cat" / "003.jpg", root / "test" / "cat" / "other name.jpg")
    command = [
        "data",
        str(root),
        "--out",
        str(tmp_path / "look"),
        "--dataset.input_size",
        "64",
        "--dataset.val_fraction",
        "0.2",
    ]
    assert main([*command, "--augment", "--training.augment.flip", "true"]) == 0
    said = capsys.readouterr().out
    assert "train 48 (the rest of train/), val 12 (0.2 of train/, by dataset.seed 0), test 21 (test/)" in said
    assert "200 x 150 to 200 x 150 pixels, median 200 x 150" in said
    assert "train/cat/003.jpg and test/cat/other name.jpg" in said
    assert "50.0%" in said
    with Image.open(tmp_path / "look" / "contact_sheet.png") as sheet:
        assert sheet.height > 4 * 96  # two classes, before and after
        assert len(sheet.convert("RGB").getcolors(2**20) or []) > 1000
    assert main([*command, "--strict"]) == 2
    assert "1 images are in two splits" in capsys.readouterr().err
    assert main([*command, "--augment"]) == 2
    assert "training.augment changes nothing" in capsys.readouterr().err


def test_how_images_are_read_is_not_what_is_trained_on(photographs: Path) -> None:
    def config(**keys: Any) -> RunConfig:
        return RunConfig(dataset=section(photographs, input_size=16, **keys))

    cached, streamed = config(), config(storage="files", workers=2, on_device=False)
    assert identity(cached, cached.dataset.load()) == identity(streamed, streamed.dataset.load())
    other = config(background="black")
    assert identity(cached, cached.dataset.load()) != identity(other, other.dataset.load())


def test_the_benchmark_of_photographs(tmp_path: Path) -> None:
    images.draw_photographs(tmp_path / "photographs", 40)
    assert images.build_row(tmp_path / "photographs", 32, 1)["rate"] > 10
    rows = images.known_rows(tmp_path / "many", (20, 200), 1)
    assert [row["files"] for row in rows] == [20, 200]
    assert rows[-1]["exponent"] < 1.5
    share, utilisation = images.epoch_rows(tmp_path / "photographs", 32, 1)
    assert 0 < share["ratio"] < 1
    assert 0 < utilisation["ratio"] < 2
