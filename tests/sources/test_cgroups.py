"""Paths of control groups by their ids."""

from __future__ import annotations

from pathlib import Path

from zpobs.sources.cgroups import CgroupPaths


def number(path: Path) -> int:
    return path.stat().st_ino


def test_folders_are_found_by_their_number(tmp_path: Path) -> None:
    inner = tmp_path / "a.slice" / "b.scope"
    inner.mkdir(parents=True)
    (tmp_path / "cgroup.procs").touch()
    paths = CgroupPaths([tmp_path / "nothing", tmp_path])
    ids = {number(tmp_path), number(inner)}
    assert paths.of(ids) == {number(tmp_path): "/", number(inner): "/a.slice/b.scope"}
    assert paths.of([2**60]) == {}


def test_one_that_comes_later_is_found_and_one_that_went_is_remembered(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").touch()
    paths = CgroupPaths([tmp_path])
    assert paths.of([1]) == {}
    late = tmp_path / "late"
    late.mkdir()
    late_id = number(late)
    assert paths.of([late_id]) == {late_id: "/late"}
    late.rmdir()
    assert paths.of([late_id]) == {late_id: "/late"}


def test_without_the_tree_no_path_is_known(tmp_path: Path) -> None:
    assert CgroupPaths([tmp_path]).of([number(tmp_path)]) == {}
