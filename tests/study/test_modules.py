"""The modules of studies: found without being imported, kept apart, and told by the digest of their source."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from orchestrator.study import StageError
from orchestrator.study.modules import Study, study_at, study_of, use_copy
from orchestrator.study.source import source_digest
from workers.stage import Origin


def study(folder: Path, files: dict[str, str]) -> Study:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    made = study_at(folder)
    made.refresh()
    return made


def test_two_studies_with_modules_of_one_name_take_turns_in_one_process(tmp_path: Path) -> None:
    studies = [
        study(
            tmp_path / name,
            {"train_it.py": "import help_it\nVALUE = help_it.VALUE\n", "help_it.py": f"VALUE = {name!r}\n"},
        )
        for name in ("one", "other")
    ]
    first = [each.load("train_it") for each in studies]
    assert [each.VALUE for each in first] == ["one", "other"]
    again = [each.load("train_it") for each in studies]
    # As long as nothing is edited they are not imported anew: what they hold in memory stays.
    assert [each is other for each, other in zip(first, again, strict=True)] == [True, True]
    studies[0].activate()
    assert sys.modules["help_it"].VALUE == "one"
    assert str(tmp_path / "other") not in sys.path


def test_a_worker_has_the_copy_also_where_the_path_of_the_driver_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "elsewhere")
    copy = study(tmp_path / "copy", {"copied_here.py": "X = 1\n"})
    use_copy(tmp_path / "copy", tmp_path / "home")
    assert study_of(Origin("", "", str(tmp_path / "home"))) is copy


def test_an_edited_module_is_imported_anew_with_those_that_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    mine = study(tmp_path, {"train_it.py": "from help_it import VALUE\n", "help_it.py": "VALUE = 1\n"})
    assert mine.load("train_it").VALUE == 1
    # Of the same length, and in the same second, in which Python would take its compiled copy.
    for value in (2, 3, 4):
        assert value == study(tmp_path, {"help_it.py": f"VALUE = {value}\n"}).load("train_it").VALUE


def test_a_module_is_found_without_importing_it_or_the_packages_above_it(tmp_path: Path) -> None:
    mine = study(tmp_path, {"pack/__init__.py": "raise ValueError\n", "pack/sub/deep.py": "raise ValueError\n"})
    found = mine.find("pack.sub.deep")
    assert found
    assert (found.file, found.root) == (tmp_path / "pack/sub/deep.py", tmp_path)
    assert mine.find("pack.sub.none") is None
    assert mine.find("no.thing") is None
    installed = mine.find("pydantic.fields")
    assert installed
    assert installed.installed


def test_the_digest_covers_what_a_module_imports_of_its_study_and_nothing_else(tmp_path: Path) -> None:
    files = {
        "top.py": "import numpy\nfrom pack import inner\ndef f():\n    import late\n",
        "late.py": "", "pack/__init__.py": "", "pack/inner.py": "from . import beside\n", "pack/beside.py": "",
        "unused.py": "", "pack/unused.py": "",
    }  # fmt: skip
    mine = study(tmp_path, files)
    before = source_digest(mine, ["top"])
    for name in ("unused.py", "pack/unused.py", "notes.txt"):
        assert source_digest(study(tmp_path, {name: "# edited\n"}), ["top"]) == before
    seen = {before}
    for name in ("top.py", "late.py", "pack/__init__.py", "pack/inner.py", "pack/beside.py"):
        seen.add(source_digest(study(tmp_path, {name: files[name] + "# edited\n"}), ["top"]))
    assert len(seen) == 6


def test_the_digest_does_not_depend_on_where_the_study_is(tmp_path: Path) -> None:
    files = {"top.py": "import helps\n", "helps.py": "X = 1\n"}
    digests = {source_digest(study(tmp_path / name, files), ["top"]) for name in ("here", "there")}
    assert len(digests) == 1


def test_a_module_that_is_a_link_to_another_folder_is_of_the_study(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/linked_help.py").write_text("X = 1\n")
    mine = study(tmp_path / "study", {"top.py": "import linked_help\n"})
    (tmp_path / "study/linked_help.py").symlink_to(tmp_path / "shared/linked_help.py")
    mine.refresh()
    before = source_digest(mine, ["top"])
    (tmp_path / "shared/linked_help.py").write_text("X = 2\n")
    assert source_digest(mine, ["top"]) != before
    found = mine.find("linked_help")
    assert found
    assert found.root == tmp_path / "study"


def test_a_circle_of_imports_ends(tmp_path: Path) -> None:
    mine = study(tmp_path, {"ring_a.py": "import ring_b\n", "ring_b.py": "import ring_a\n"})
    assert source_digest(mine, ["ring_a"]) == source_digest(mine, ["ring_a"])


@pytest.mark.parametrize("text", ["def f(:\n", "x = '\\ud800' + \x00\n"])
def test_a_module_that_is_no_python_is_named_with_its_file(tmp_path: Path, text: str) -> None:
    mine = study(tmp_path, {"broken_one.py": text})
    with pytest.raises(StageError, match=r"module 'broken_one' is no Python: .*broken_one\.py"):
        source_digest(mine, ["broken_one"])
