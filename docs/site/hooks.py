"""What MkDocs does not do by itself: pages that lie above docs/, notebooks as pages, links between all of them, and
diagrams that are drawn without a network.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).parents[2]
ABOVE = {
    "README.md": "index.md",
    "README.zh-CN.md": "index.zh.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages of the repository and where they stand in the site."""
SHOWN = ("LICENSE", "CITATION.cff")
"""Files that pages link to."""
SCRIPTS = {"mermaid@11": "dist/mermaid.min.js", "iframe-worker@1": "shim/index.js"}
"""Packages of npm that draw diagrams and search pages opened from disk, and the file of each that the site has a copy of:
the theme would have every reader fetch it from a public server."""
PLACES = {"mermaid@11": "assets/javascripts/mermaid.js", "iframe-worker@1": "assets/javascripts/iframe-worker.js"}
_FENCES = "pymdownx.superfences"
_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")


def on_config(config: Any) -> Any:
    """Fetch the scripts; without mermaid diagrams stay text, so that no page asks another machine when it is read."""
    config.extra["fetched"] = {name for name in SCRIPTS if _fetch(name)}
    config.extra["polyfills"] = [PLACES["iframe-worker@1"]]
    if "mermaid@11" not in config.extra["fetched"]:
        config.mdx_configs[_FENCES] = {**config.mdx_configs[_FENCES], "custom_fences": []}
    for name in SCRIPTS.keys() - config.extra["fetched"]:
        logging.getLogger("mkdocs.hooks").info("the site does without %s, which npm could not fetch", name)
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages above docs/, the files they link to, a page for every notebook, and what draws diagrams."""
    for name in config.extra["fetched"]:
        files.append(File.generated(config, PLACES[name], abs_src_path=str(_kept(name))))
    for name, place in ABOVE.items():
        files.append(File.generated(config, place, content=_from_above((ROOT / name).read_text(encoding="utf-8"))))
    for name in SHOWN:
        files.append(File.generated(config, f"{name}.txt", content=(ROOT / name).read_text(encoding="utf-8")))
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        content = _as_page(json.loads(notebook.read_text(encoding="utf-8")), notebook.name)
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point links that leave docs/ at the pages that stand for them, and those to a notebook at its page."""

    def moved(link: re.Match[str]) -> str:
        target = link[2].removeprefix("../")
        if link[2].startswith("../") and target in ABOVE:
            return f"{link[1]}{ABOVE[target]}{link[3]}"
        return link[0]

    return _LINK.sub(moved, re.sub(r"\]\((notebooks/\w+)\.ipynb\)", r"](\1.md)", markdown))


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Load mermaid on the pages that have diagrams, before the theme looks for it."""
    if '<pre class="mermaid">' not in output:
        return output
    script = f'<script src="{get_relative_url(PLACES["mermaid@11"], page.url)}"></script>'
    return output.replace("</head>", f"{script}</head>", 1)


def _kept(name: str) -> Path:
    return ROOT / "build" / "scripts" / f"{name}.js"


def _fetch(name: str) -> bool:
    """Fetch a script from npm's registry, once; return whether it is there."""
    if _kept(name).is_file():
        return True
    if shutil.which("npm") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", name, "--silent", "--fetch-retries=1"]
        if subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode:
            return False
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as packed:
            script = packed.extractfile(f"package/{SCRIPTS[name]}")
            assert script is not None
            _kept(name).parent.mkdir(parents=True, exist_ok=True)
            _kept(name).write_bytes(script.read())
    return True


def _from_above(text: str) -> str:
    """Return a page as it reads inside docs/."""

    def moved(link: re.Match[str]) -> str:
        target = link[2]
        if target in ABOVE:
            target = ABOVE[target]
        elif target in SHOWN:
            target = f"{target}.txt"
        return f"{link[1]}{target.removeprefix('docs/')}{link[3]}"

    text = re.sub(r'(src|srcset)="docs/', r'\1="', text)
    return _LINK.sub(moved, text)


def _as_page(notebook: dict[str, Any], name: str) -> str:
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    first, *rest = parts
    return "\n\n".join([first, f"[Download this notebook]({name}){{ download }}", *rest]) + "\n"
