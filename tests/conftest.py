"""What every test shares: its own data cache, one thread, tiny configurations, a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

TINY_DIGITS: dict[str, Any] = {
    "dataset.num_train": 256,
    "dataset.num_val": 96,
    "dataset.num_test": 64,
    "training.num_epochs": 1,
    "training.batch_size": 32,
}

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1300,1000",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--force-prefers-reduced-motion",  # a smooth scroll would still move under the pointer
)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["ROUTING_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def tiny() -> dict[str, Any]:
    """Dotted keys of a digits run that takes a fraction of a second."""
    return dict(TINY_DIGITS)


@pytest.fixture
def tiny_quality() -> dict[str, Any]:
    """Dotted keys of a quality run that takes a fraction of a second."""
    return {
        "dataset.name": "quality",
        "dataset.num_train": 160,
        "dataset.num_val": 80,
        "dataset.num_test": 40,
        "model.name": "hyperiqa",
        "model.crop_size": 32,
        "model.backbone.widths": [4, 8, 8, 16],
        "training.num_epochs": 1,
        "training.batch_size": 32,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose path has a space in it."""
    path = tmp_path / "a folder"
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium that reaches no other machine."""
    if BROWSER is None or DRIVER is None:
        pytest.skip("no chromium with chromedriver on this machine")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()
