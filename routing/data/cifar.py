"""CIFAR-10 and CIFAR-100: 60,000 photographs of 32 x 32 pixels, through torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from routing.data import DataInfo, ImageData, torchvision_data
from routing.data.sections import CifarSection

CLASS_NAMES = {
    "cifar10": "airplane automobile bird cat deer dog frog horse ship truck",
    "cifar100": """
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
        castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
        elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
        man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
        pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
        skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
        tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm""",
}
MEAN = {"cifar10": (0.4914, 0.4822, 0.4465), "cifar100": (0.5071, 0.4865, 0.4409)}  # of the training images
STD = {"cifar10": (0.2470, 0.2435, 0.2616), "cifar100": (0.2673, 0.2564, 0.2762)}


def info(section: CifarSection) -> DataInfo:
    """Describe the data without reading it."""
    names = tuple(CLASS_NAMES[section.name].split())
    return DataInfo(
        task="classification",
        channels=3,
        input_size=section.input_size,
        num_outputs=len(names),
        mean=MEAN[section.name],
        std=STD[section.name],
        class_names=names,
        patch_grid_size=section.patch_grid_size,
        patch_margin=section.patch_margin,
    )


def load(section: CifarSection) -> ImageData:
    """Return train, val (cut from train by seed) and test; see ``torchvision_data.load``."""
    return torchvision_data.load(section, info(section), section.name.upper(), _check)


def _check(source: type[Any], root: Path) -> str | None:
    from torchvision.datasets.utils import check_integrity

    folder = root / source.base_folder
    meta = [source.meta["filename"], source.meta["md5"]]
    for name, checksum in [*source.train_list, *source.test_list, meta]:
        if not (folder / name).is_file():
            return f"dataset.root {root}: no file {source.base_folder}/{name}"
        if not check_integrity(folder / name, checksum):
            return f"{folder / name}: damaged, its checksum (MD5) is not {checksum}"
    return None
