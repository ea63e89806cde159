"""TensorBoard events of a run: one point per epoch of every number in its history."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

GROUPS = {"train": "train", "val": "validation", "flops": "compute"}
X_AXIS = "epoch"


class EventLog:
    """Writes history rows as events into a run's folder; without a folder it does nothing.

    Args:
        first_epoch: events of this epoch and later that an interrupted run left behind are void.
    """

    def __init__(self, folder: Path | None, first_epoch: int) -> None:
        self.folder, self.first_epoch = folder, first_epoch

    def __enter__(self) -> EventLog:
        self.writer = None
        if self.folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.folder), purge_step=self.first_epoch, max_queue=1000)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.writer is not None:
            self.writer.close()

    def add_settings(self, settings: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        """Add what TensorBoard's HParams page shows of a trained run: its configuration and its last epoch.

        Args:
            settings: dotted keys; what is no number, truth value or text is written as text.
        """
        if self.writer is None:
            return
        from torch.utils.tensorboard.summary import hparams

        plain = {
            key: value if isinstance(value, (bool, int, float, str)) else str(value) for key, value in settings.items()
        }
        numbers = {_tag(key): value for key, value in row.items() if key != X_AXIS and isinstance(value, (int, float))}
        for summary in hparams(plain, numbers):
            self.writer._get_file_writer().add_summary(summary)  # add_hparams would begin a run of its own
        self.writer.flush()

    def add(self, row: dict[str, Any]) -> None:
        """Add one history row, ``val_accuracy`` as ``validation/accuracy``."""
        if self.writer is None:
            return
        for name, value in row.items():
            if name != X_AXIS and isinstance(value, (int, float)):
                self.writer.add_scalar(_tag(name), value, int(row[X_AXIS]))
        self.writer.flush()

    def add_images(self, tag: str, image: NDArray[np.uint8], epoch: int) -> None:
        """Add an image (H, W, 3) of an epoch."""
        if self.writer is not None:
            self.writer.add_image(tag, image, epoch, dataformats="HWC")
            self.writer.flush()


def _tag(name: str) -> str:
    first, _, rest = name.partition("_")
    return f"{GROUPS[first]}/{rest or name}" if first in GROUPS else f"run/{name}"
