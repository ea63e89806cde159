"""Python of the pages: what a snippet names must exist, without running it."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
from typing import Any

GIVEN = {"model", "images"}
"""Names that the text around a snippet gives: the reader's own model and images."""

OURS = ("routing", "search_spaces", "analysis")


def check(text: str, known: set[str]) -> set[str]:
    """Assert that imports resolve, names are bound and our functions take these arguments; return what is bound now.

    Args:
        known: names bound by earlier snippets of the page.
    """
    tree = ast.parse(text)
    objects = _imported(tree)
    nodes = list(ast.walk(tree))
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    bound |= {node.name for node in nodes if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    bound |= {*objects}
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            assert node.id in bound | known | GIVEN | set(dir(builtins)), f"'{node.id}' is bound nowhere"
        if isinstance(node, ast.Attribute):
            _resolve(node, objects)
        if isinstance(node, ast.Call):
            _check_call(node, objects)
    return bound


def _imported(tree: ast.Module) -> dict[str, Any]:
    """Return what a snippet imports, by the name it gives it."""
    objects: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                module = importlib.import_module(alias.name)
                root = importlib.import_module(alias.name.split(".")[0])
                objects[alias.asname or root.__name__] = module if alias.asname else root
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            module = importlib.import_module(node.module)
            for alias in node.names:
                objects[alias.asname or alias.name] = _member(module, alias.name)
    return objects


def _member(module: Any, name: str) -> Any:
    return getattr(module, name) if hasattr(module, name) else importlib.import_module(f"{module.__name__}.{name}")


def _resolve(node: ast.expr, objects: dict[str, Any]) -> Any:
    """Return the object behind ``search_spaces.load_study``, or None for what is known only when running."""
    if isinstance(node, ast.Name):
        return objects.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _resolve(node.value, objects)
        if inspect.ismodule(owner) or inspect.isclass(owner):
            return getattr(owner, node.attr)
    return None


def _check_call(node: ast.Call, objects: dict[str, Any]) -> None:
    function = _resolve(node.func, objects)
    if function is None or str(getattr(function, "__module__", "")).split(".")[0] not in OURS:
        return
    if any(isinstance(value, ast.Starred) for value in node.args) or any(k.arg is None for k in node.keywords):
        return
    names = {keyword.arg: None for keyword in node.keywords if keyword.arg}
    inspect.signature(function).bind(*[None] * len(node.args), **names)
