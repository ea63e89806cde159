"""What MkDocs does not do by itself: pages that lie above docs/, notebooks as pages, links between all of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

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
_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages above docs/, the files they link to, and a page for every notebook."""
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
