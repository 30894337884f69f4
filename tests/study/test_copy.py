"""A copy of a study's code for workers: what it has, what it leaves out, and what becomes of it on a node."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest

from orchestrator.study import StageError
from orchestrator.study.copy import CodeCopy, make_copy, unpack
from orchestrator.study.modules import study_at
from orchestrator.study.table import StageTable

MODULE = "def train(x: int):\n    return {'loss': x}\n"


def table_of(folder: Path, reference: str = "copied_it:train") -> StageTable:
    study_at(folder).refresh()
    table = StageTable(study_at(folder))
    table.stage(reference)
    return table


def copied(folder: Path, *without: Path, reference: str = "copied_it:train") -> CodeCopy:
    copy = make_copy(table_of(folder, reference), without)
    assert copy
    return copy


def names(copy: CodeCopy) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(copy.content)).namelist()


def write(folder: Path, *paths: str, text: str = "text") -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def test_a_copy_has_code_and_small_files_and_no_data_outputs_environments_or_secrets(tmp_path: Path) -> None:
    (tmp_path / "copied_it.py").write_text(MODULE)
    write(tmp_path, "sweep.yaml", "pack/__init__.py", "pack/prompt.txt", ".rayignore", text="ignored\n")
    write(tmp_path, "ignored/x.py", "outputs/store/x.json", "results/x.json", ".env", ".git/config", "any/pyvenv.cfg")
    write(tmp_path, ".netrc", ".aws/credentials", ".ray/auth_token", "deep/.git-credentials", "key.pem")
    write(tmp_path, "any/lib/x.py", "__pycache__/x.pyc", "table.parquet", "workers/x.txt")
    (tmp_path / "large.csv").write_bytes(bytes(1_000_001))
    (tmp_path / "large.py").write_bytes(b"#" * 1_000_001)
    copy = copied(tmp_path, tmp_path / "results")
    assert names(copy) == [
        ".rayignore",
        "copied_it.py",
        "large.py",
        "pack/__init__.py",
        "pack/prompt.txt",
        "sweep.yaml",
    ]
    # Of the same files, the same bytes.
    os.utime(tmp_path / "sweep.yaml", (0, 0))
    assert copied(tmp_path, tmp_path / "results") == copy


def test_a_module_that_somebody_works_on_elsewhere_comes_along_and_an_installed_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "elsewhere", "copied_pack/__init__.py", "copied_pack/deep/inner.py", text=MODULE)
    (tmp_path / "study").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    copy = copied(tmp_path / "study", reference="copied_pack.deep.inner:train")
    assert names(copy) == ["copied_pack/__init__.py", "copied_pack/deep/inner.py"]
    site = tmp_path / "site"
    write(site, "copied_site.py", text=MODULE)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr("site.getsitepackages", lambda: [str(site)])
    assert names(copied(tmp_path / "study", reference="copied_site:train")) == []


def test_a_sweep_of_this_package_alone_needs_no_copy(tmp_path: Path) -> None:
    assert make_copy(table_of(tmp_path, "prompts")) is None


def test_a_folder_with_too_much_in_it_is_an_error_that_names_the_largest_parts(tmp_path: Path) -> None:
    (tmp_path / "copied_it.py").write_text(MODULE)
    for number in range(22):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"{number}.bin").write_bytes(bytes(999_999))
    with pytest.raises(StageError, match=r"more than 5,000 files or 20 MB; .*\.rayignore; largest: data \("):
        copied(tmp_path)
    (tmp_path / ".rayignore").write_text("/data\n")
    assert names(copied(tmp_path)) == [".rayignore", "copied_it.py"]


def test_links_and_odd_names_do_no_harm_and_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study/copied_it.py").write_text(MODULE)
    write(tmp_path / "shared", "linked_it.py", "deep/inner.py")
    (tmp_path / "study/linked_it.py").symlink_to(tmp_path / "shared/linked_it.py")
    (tmp_path / "study/deep").symlink_to(tmp_path / "shared/deep")
    (tmp_path / "study/up").symlink_to(tmp_path)
    (tmp_path / "study/gone").symlink_to("nowhere")
    Path(os.fsdecode(os.fsencode(tmp_path / "study") + b"/caf\xe9.txt")).touch()
    os.mkfifo(tmp_path / "study/pipe")
    assert names(copied(tmp_path / "study")) == ["copied_it.py", "deep/inner.py", "linked_it.py"]
    (tmp_path / "study/prompt.txt").symlink_to("/proc/self/mem")
    with pytest.raises(StageError, match=r"prompt.txt is copied .* cannot be read: .*; exclude it in .rayignore"):
        copied(tmp_path / "study")


def test_on_a_node_a_copy_is_unpacked_once_and_again_where_it_was_altered(tmp_path: Path) -> None:
    (tmp_path / "copied_it.py").write_text(MODULE)
    copy = copied(tmp_path)
    folder = unpack(copy.content, copy.digest, tmp_path / "node")
    assert (folder / "copied_it.py").read_text() == MODULE
    before = (folder / "copied_it.py").stat()
    assert unpack(copy.content, copy.digest, tmp_path / "node") == folder
    assert (folder / "copied_it.py").stat() == before
    for alter in (lambda path: path.write_text("altered"), Path.unlink):
        alter(folder / "copied_it.py")
        assert unpack(copy.content, copy.digest, tmp_path / "node") == folder
        assert (folder / "copied_it.py").read_text() == MODULE
    assert [each.name for each in (tmp_path / "node").iterdir()] == [folder.name]
