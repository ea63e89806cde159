"""The documentation as a site: it builds without a warning, every page is in it, and no page asks another machine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pages import PAGES, ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("material", "mkdocstrings"):
        pytest.importorskip(module, reason="the site's builder is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_every_page_is_there_and_is_found(site: Path) -> None:
    for page in PAGES:
        if page.parent.name == "docs":
            assert (site / f"{page.stem}.html").is_file(), page
    found = {entry["location"].partition("#")[0] for entry in json.loads((site / "search/search_index.json").read_text())["docs"]}
    assert {"index.html", "contributing.html", "python.html", "notebooks/own_network.html", "reference/index.html"} <= found


@pytest.mark.slow
def test_the_reference_has_every_public_name(site: Path) -> None:
    import routing

    text = (site / "reference" / "index.html").read_text()
    names = [name for name in routing.__all__ if name not in ("Results", "Study")]
    missing = [name for name in names if f".{name}\"" not in text]
    assert not missing
    for method in ("pick", "plot_front", "watch", "export"):
        assert f'StudyResults.{method}"' in text, method


@pytest.mark.slow
def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']?(https?:[^\"'>\s]+)", page.read_text())
        assert [address for address in loaded if "squidfunk" not in address] == [], page


@pytest.mark.slow
def test_from_disk_without_a_network_diagrams_are_drawn_and_the_search_finds(site: Path, browser: Any) -> None:
    if not (site / "assets/javascripts/mermaid.js").is_file():
        pytest.skip("npm, which fetches the scripts of the site, is not to be had")
    browser.get_log("browser")
    for page, diagrams in (("index.html", 2), ("index.zh.html", 2), ("contributing.html", 1), ("faq.html?q=knee", 0)):
        browser.get(f"{site.as_uri()}/{page}")
        drawn = "return document.querySelectorAll('div.mermaid').length"
        found = "return document.querySelectorAll('.md-search-result__item').length"
        end = time.monotonic() + 20
        while (browser.execute_script(drawn), browser.execute_script(found) > 0) != (diagrams, "?" in page):
            assert time.monotonic() < end, page
            time.sleep(0.1)
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
