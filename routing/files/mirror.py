"""``Mirror``: a folder's copy behind a URL (``s3://``, ``gs://``, ``abfs://``, ``hdfs://``, ``file://``, ...).

Trials write plain files; where nodes share no file system, these files travel through object storage. pyarrow's file
systems are used, which Ray brings along, and fsspec's for schemes pyarrow does not know.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from routing.errors import InputError, RoutingError
from routing.files.atomic import write_bytes
from routing.files.secrets import error_without_secrets, without_secrets

_WRITES_IN_PLACE = ("local", "hdfs")
"""pyarrow's names of file systems on which a reader sees a file while it is written."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def is_url(place: str | os.PathLike[str]) -> bool:
    """Return whether a place is a URL; ``pathlib`` makes ``s3:/bucket`` of ``s3://bucket``, which counts as one."""
    return _URL.match(str(place)) is not None


class Mirror:
    """Copies files between local folders and those below ``url``; only files that changed are uploaded again.

    ``url`` is without secrets, for messages and files; ``address`` is complete, with any password.

    Raises:
        InputError: no file system answers for the URL.
    """

    def __init__(self, url: str) -> None:
        scheme, _, rest = url.partition(":")
        self.address = f"{scheme}://{rest.lstrip('/') if scheme != 'file' else '/' + rest.lstrip('/')}".rstrip("/")
        self.url = without_secrets(self.address)
        self._files, self._root = _open(self.address)
        self.name = self._root.rpartition("/")[2]
        if not self.name:
            raise InputError(f"{self.url}: a URL needs a bucket and a folder in it, such as s3://bucket/results")
        self._sent: dict[Path, tuple[int, int]] = {}

    def holds(self, name: str) -> bool:
        """Return whether there is a file of this name."""
        from pyarrow.fs import FileType

        with self._answers():
            return bool(self._files.get_file_info(self._path(name)).type == FileType.File)

    def read(self, name: str) -> str | None:
        """Return the text of a file, None where there is none of this name."""
        if not self.holds(name):
            return None
        with self._answers(), self._files.open_input_stream(self._path(name)) as stream:
            return bytes(stream.read()).decode("utf-8")

    def push(self, folder: Path, name: str = "", *, deep: bool = True) -> None:
        """Copy what changed in ``folder`` to ``url/name``; hidden files stay.

        Files directly in it that have been deleted since are deleted from the mirror too.

        Args:
            deep: with the folders in it, else only its own files.
        """
        pushed = {path: f"{name}/{path.relative_to(folder)}".lstrip("/") for path in _files_of(folder, deep)}
        for path, target in pushed.items():
            with suppress(FileNotFoundError):  # replaced or removed meanwhile
                stamp = path.stat().st_mtime_ns, path.stat().st_size
                if self._sent.get(path) != stamp:
                    self._write(target, path.read_bytes())
                    self._sent[path] = stamp
        for path in [path for path in self._sent if path.parent == folder and path not in pushed]:
            self.drop(f"{name}/{path.name}".lstrip("/"))
            del self._sent[path]

    def pull(self, folder: Path, name: str = "", *, replace: bool = False) -> None:
        """Copy the files below ``url/name`` that ``folder`` lacks, with ``replace`` those of another size as well."""
        from pyarrow.fs import FileSelector, FileType

        base = self._path(name)
        with self._answers():
            listing = self._files.get_file_info(FileSelector(base, allow_not_found=True, recursive=True))
        for found in listing:
            path = folder / os.path.relpath(found.path, base)
            if found.type != FileType.File or path.name.startswith("."):
                continue
            if not path.resolve().is_relative_to(folder.resolve()):
                raise InputError(f"{self.url}: the name '{os.path.relpath(found.path, base)}' leads out of the folder")
            if not path.exists() or (replace and path.stat().st_size != found.size):
                self._fetch(found.path, path)

    def pull_longer(self, folder: Path, name: str) -> None:
        """Copy a file that only ever grows, when the one behind the URL is longer."""
        with self._answers():
            size = self._files.get_file_info(self._path(name)).size or 0
        path = folder / name
        if size > (path.stat().st_size if path.exists() else 0):
            self._fetch(self._path(name), path)

    def drop(self, name: str) -> None:
        """Delete a file behind the URL, if it is there."""
        if self.holds(name):
            with self._answers():
                self._files.delete_file(self._path(name))

    def drop_folder(self, name: str) -> None:
        """Delete a folder behind the URL with all that is in it, if it is there."""
        from pyarrow.fs import FileType

        with self._answers():
            if self._files.get_file_info(self._path(name)).type == FileType.Directory:
                self._files.delete_dir(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _write(self, name: str, content: bytes) -> None:
        path = self._path(name)
        folder, last = os.path.split(path)
        # an object store shows a file once it is whole; others are written beside and renamed
        written = f"{folder}/.{last}.part" if self._files.type_name in _WRITES_IN_PLACE else path
        with self._answers():
            self._files.create_dir(folder, recursive=True)
            with self._files.open_output_stream(written) as stream:
                stream.write(content)
            if written != path:
                self._files.move(written, path)

    def _fetch(self, source: str, path: Path) -> None:
        """Write beside and rename, so that a reader sees a whole file or none."""
        with self._answers(), self._files.open_input_stream(source) as stream:
            content = stream.read()
        write_bytes(path, content)

    @contextmanager
    def _answers(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RoutingError(f"{self.url} does not answer: {error_without_secrets(error, self.address)}") from None


def _open(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path in it."""
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem

    try:
        files, root = FileSystem.from_uri(url)
    except ArrowInvalid:  # a scheme that pyarrow does not know
        files, root = _open_with_fsspec(url)
    except OSError as error:
        raise InputError(f"{without_secrets(url)} does not answer: {error_without_secrets(error, url)}") from None
    return files, root.rstrip("/")


def _open_with_fsspec(url: str) -> tuple[Any, str]:
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    try:
        from fsspec.core import url_to_fs

        found, root = url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise InputError(
            f"{without_secrets(url)}: {error_without_secrets(error, url)} "
            "(valid: s3://, gs://, abfs://, hdfs://, file://, or a folder)"
        ) from None
    return PyFileSystem(FSSpecHandler(found)), root


def _files_of(folder: Path, deep: bool) -> list[Path]:
    found = sorted(path for path in folder.glob("**/*" if deep else "*") if path.is_file())
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
