"""CIFAR and MNIST through torchvision, on files of the real format with a few images; nothing is downloaded."""

from __future__ import annotations

import hashlib
import pickle
import struct
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision import datasets

from routing.config.run import RunConfig
from routing.data import ImageData, mnist
from routing.data.torchvision_data import resize
from routing.errors import InputError, RoutingError


def load(name: str, root: Path, **keys: Any) -> ImageData:
    values = {f"dataset.{key}": value for key, value in keys.items()}
    return RunConfig.from_dict({"dataset.name": name, "dataset.root": str(root), **values}).dataset.load()


def write_cifar(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Write CIFAR's own files with 20 images in each, and let torchvision expect their checksums; return all pixels."""
    source = getattr(datasets, name.upper())
    rng = np.random.default_rng(0)
    folder = root / source.base_folder
    folder.mkdir(parents=True)
    pixels = []

    def write(file: str, content: dict[str, Any]) -> list[str]:
        data = pickle.dumps(content)
        (folder / file).write_bytes(data)
        return [file, hashlib.md5(data).hexdigest()]

    def batch(file: str) -> list[str]:
        values = rng.integers(0, 256, (20, 3 * 32 * 32), dtype=np.uint8)
        pixels.append(values)
        labels = list(range(20)) if name == "cifar100" else [index % 10 for index in range(20)]
        return write(file, {"data": values, "fine_labels" if name == "cifar100" else "labels": labels})

    monkeypatch.setattr(source, "train_list", [batch(file) for file, _ in source.train_list])
    monkeypatch.setattr(source, "test_list", [batch(file) for file, _ in source.test_list])
    names = ["name"] * 100
    file, md5 = write(source.meta["filename"], {source.meta["key"]: names})
    monkeypatch.setattr(source, "meta", {**source.meta, "filename": file, "md5": md5})
    return np.concatenate(pixels).reshape(-1, 3, 32, 32)


@pytest.mark.parametrize(("name", "classes", "count"), [("cifar10", 10, 100), ("cifar100", 100, 20)])
def test_cifar(folder: Path, name: str, classes: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = write_cifar(folder, name, monkeypatch)
    data = load(name, folder)
    assert {split: len(images) for split, images in data.splits.items()} == {
        "train": count - count // 10,
        "val": count // 10,
        "test": 20,
    }
    assert data.info.num_outputs == classes == len(set(data.info.class_names))
    assert torch.equal(data["test"].images, torch.from_numpy(pixels[-20:]))
    both = torch.cat([data["train"].images, data["val"].images]).flatten(1)
    assert len(both.unique(dim=0)) == count


def test_cifar_resized_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(folder, "cifar10", monkeypatch)
    assert load("cifar10", folder, input_size=64, patch_grid_size=8)["train"].images.shape == (90, 3, 64, 64)


def test_missing_files_are_one_line_with_the_remedy(folder: Path) -> None:
    with pytest.raises(
        InputError, match=r"no file cifar-10-batches-py/data_batch_1; put CIFAR10 there, or .*download true"
    ):
        load("cifar10", folder)
    with pytest.raises(InputError, match=r"no file MNIST/raw/train-images-idx3-ubyte; put MNIST there"):
        load("mnist", folder)
    with pytest.raises(InputError, match=r"no file FashionMNIST/raw/"):
        load("fashion_mnist", folder)
    with pytest.raises(InputError, match=r"'dataset\.root' is missing"):
        RunConfig.from_dict({"dataset.name": "cifar10"})


def test_a_wrong_checksum_is_never_unpickled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(folder, "cifar10", monkeypatch)
    path = folder / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes() + b"x")
    monkeypatch.setattr(pickle, "load", lambda *args, **kwargs: pytest.fail("unpickled a damaged file"))
    with pytest.raises(InputError, match=r"data_batch_3: damaged, its checksum \(MD5\) is not [0-9a-f]{32}"):
        load("cifar10", folder)


@pytest.mark.parametrize("failure", [URLError("no network\nhere"), RuntimeError("File not found or corrupted.")])
def test_a_failed_download_is_one_line(folder: Path, failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any) -> None:
        raise failure

    monkeypatch.setattr(datasets.CIFAR10, "download", fail)
    with pytest.raises(RoutingError, match=r"^CIFAR10 could not be downloaded to .*: ") as error:
        load("cifar10", folder, download=True)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 1


def test_nothing_is_downloaded_unless_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.CIFAR10, "download", lambda self: pytest.fail("downloaded"))
    with pytest.raises(InputError, match="no file"):
        load("cifar10", folder)


def write_mnist(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write MNIST's IDX files with 30 and 10 images."""
    monkeypatch.setattr(mnist, "ENTRIES", {"train": 30, "t10k": 10})
    folder = root / mnist.SOURCES[name] / "raw"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in mnist.ENTRIES.items():
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        header = struct.pack(">IIII", 2051, count, 28, 28)
        (folder / f"{split}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels.tobytes())


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_mnist(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(folder, name, monkeypatch)
    data = load(name, folder, num_train=20)
    assert {split: len(images) for split, images in data.splits.items()} == {"train": 20, "val": 3, "test": 10}
    assert data["train"].images.shape == (20, 1, 28, 28)
    assert data["test"].targets.tolist() == list(range(10))
    assert data.info.channels == 1


def test_a_truncated_mnist_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(folder, "mnist", monkeypatch)
    path = folder / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"t10k-images-idx3-ubyte: damaged, it has 7855 bytes instead of 7856"):
        load("mnist", folder)


def test_resize_keeps_means_and_smooths() -> None:
    board = (torch.arange(64) % 2 * 255).to(torch.uint8).expand(1, 1, 64, 64)
    small = resize(board, 16).float()
    assert small.mean() == pytest.approx(127.5, abs=1)
    assert small.std() < 20  # without smoothing it would stay black and white
    assert torch.equal(resize(board, 64), board)
