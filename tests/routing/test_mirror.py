"""A folder's copy behind a URL: what changed goes there, what is missing comes back, on two kinds of file system."""

from __future__ import annotations

from pathlib import Path

import pytest

from routing.errors import InputError, RoutingError
from routing.files.mirror import Mirror, is_url


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path}/far/study" if request.param == "file" else f"memory://{tmp_path.name}/study"


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_is_pushed_is_pulled(url: str, tmp_path: Path) -> None:
    near = write(tmp_path / "near", ledger="a\nb\n", trials__0__metrics="1", **{".lock": "mine"})
    Mirror(url).push(near)
    other = tmp_path / "other"
    Mirror(url).pull(other)
    assert contents(other) == {"ledger": "a\nb\n", "trials/0/metrics": "1"}
    assert Mirror(url).holds("trials/0/metrics")
    assert not Mirror(url).holds("trials/0")
    assert not Mirror(url).holds(".lock")


def test_shallow_push_and_a_part_of_the_tree(url: str, tmp_path: Path) -> None:
    near = write(tmp_path / "near", ledger="a", trials__0__metrics="1", trials__1__metrics="2")
    mirror = Mirror(url)
    mirror.push(near, deep=False)
    mirror.push(near / "trials" / "1", "trials/1")
    mirror.pull(tmp_path / "all")
    assert contents(tmp_path / "all") == {"ledger": "a", "trials/1/metrics": "2"}
    mirror.pull(tmp_path / "one", "trials/1")
    assert contents(tmp_path / "one") == {"metrics": "2"}


def test_only_changes_travel(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    near = write(tmp_path / "near", history="1", checkpoint="x")
    mirror = Mirror(url)
    written: list[str] = []
    plain = mirror._write
    monkeypatch.setattr(mirror, "_write", lambda name, content: (written.append(name), plain(name, content)))
    mirror.push(near, "trials/0")
    mirror.push(near, "trials/0")
    write(near, history="1\n2")
    mirror.push(near, "trials/0")
    assert written == ["trials/0/checkpoint", "trials/0/history", "trials/0/history"]
    (near / "checkpoint").unlink()
    mirror.push(near, "trials/0")
    assert not mirror.holds("trials/0/checkpoint")
    assert mirror.holds("trials/0/history")


def test_pull_keeps_what_is_here_and_takes_the_longer_ledger(url: str, tmp_path: Path) -> None:
    mirror = Mirror(url)
    mirror.push(write(tmp_path / "far", ledger="a\nb\n", table="theirs"))
    here = write(tmp_path / "here", ledger="a\n", table="mine")
    mirror.pull(here)
    assert contents(here) == {"ledger": "a\n", "table": "mine"}
    mirror.pull_longer(here, "ledger")
    assert contents(here)["ledger"] == "a\nb\n"
    write(here, ledger="a\nb\nc\n")
    mirror.pull_longer(here, "ledger")
    assert contents(here)["ledger"] == "a\nb\nc\n"


def test_nothing_there_yet(url: str, tmp_path: Path) -> None:
    mirror = Mirror(url)
    mirror.pull(tmp_path / "empty")
    mirror.pull_longer(tmp_path / "empty", "ledger")
    mirror.drop("ledger")
    assert not (tmp_path / "empty").exists()


def test_a_path_that_went_through_pathlib_is_the_same_url(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/study"
    assert Mirror(str(Path(url))).url == Mirror(url).url == url
    assert Mirror(url).name == "study"
    assert is_url("s3://bucket/x")
    assert is_url(Path("s3://bucket/x"))
    assert not is_url("results/x")
    assert not is_url("/results/x:y")


def test_unknown_schemes_and_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nosuch://bucket/x: .*valid: s3://"):
        Mirror("nosuch://bucket/x")
    with pytest.raises(InputError, match="a URL needs a bucket and a folder in it"):
        Mirror("s3://")
    (tmp_path / "file").write_text("")
    with pytest.raises(RoutingError, match=f"file://{tmp_path}/file/x does not answer"):
        Mirror(f"file://{tmp_path}/file/x").push(write(tmp_path / "near", a="1"))


def test_text_is_read_and_folders_are_dropped(url: str, tmp_path: Path) -> None:
    mirror = Mirror(url)
    mirror.push(write(tmp_path / "near", mark="a\n", trials__0__metrics="1", trials__1__metrics="2"))
    assert mirror.read("mark") == "a\n"
    assert mirror.read("nothing") is None
    mirror.drop_folder("trials/0")
    mirror.drop_folder("trials/9")
    mirror.pull(tmp_path / "other")
    assert contents(tmp_path / "other") == {"mark": "a\n", "trials/1/metrics": "2"}


def test_a_write_that_is_cut_off_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = Mirror(f"file://{tmp_path}/far/study")
    near = write(tmp_path / "near", ledger="old")
    mirror.push(near)
    plain = mirror._files

    class Cut:
        type_name = "local"

        def move(self, source: str, target: str) -> None:
            raise OSError("the machine was lost")

        def __getattr__(self, name: str) -> object:
            return getattr(plain, name)

    monkeypatch.setattr(mirror, "_files", Cut())
    write(near, ledger="a longer one")
    with pytest.raises(RoutingError, match="the machine was lost"):
        mirror.push(near)
    Mirror(mirror.url).pull(tmp_path / "other")
    assert contents(tmp_path / "other") == {"ledger": "old"}
