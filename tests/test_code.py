"""Results say which code made them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from orchestrator.code import code_commit, code_digest, difference, this_code

CHECKOUT = Path(__file__).parents[1]


def test_the_code_is_named_by_commit_or_by_a_digest_of_its_source() -> None:
    assert re.fullmatch(r"[0-9a-f]{12}(\+dirty)?|source-[0-9a-f]{12}", code_commit())


def test_a_package_that_is_installed_in_the_checkout_of_a_study_is_not_named_by_the_commit_of_that(
    tmp_path: Path,
) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *author, "commit", "-q", "--allow-empty", "-m", "the study"], cwd=tmp_path, check=True)
    for package in ("orchestrator", "workers"):
        shutil.copytree(CHECKOUT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    code = "from orchestrator.code import code_commit; print(code_commit())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert found.stdout == f"source-{code_digest()[:12]}\n"


def test_another_version_on_a_node_is_named_with_both_places_and_an_edit_with_what_to_do() -> None:
    mine = this_code()
    assert difference(mine) is None
    assert difference(mine._replace(version="9", host="head", place="/site/orchestrator")) is None
    edited = difference(mine._replace(digest="0" * 64))
    assert edited
    assert edited.startswith("the code changed since the driver started: a file of orchestrator or workers was edited")
    other = difference(mine._replace(digest="0" * 64, version="9", host="head", place="/site/orchestrator"))
    assert other == (
        f"{mine.host} has alignment-sweeps {mine.version} at {mine.place}, and the driver on head has 9 at "
        "/site/orchestrator, which is not the same code: install one version on every node"
    )


def test_the_digest_is_that_of_the_files_wherever_the_two_packages_lie(tmp_path: Path) -> None:
    for package in ("orchestrator", "workers"):
        shutil.copytree(CHECKOUT / package, tmp_path / package / package, ignore=shutil.ignore_patterns("__pycache__"))
    code = "from orchestrator.code import code_commit, code_digest; print(code_digest(), code_commit())"
    path = ":".join(str(tmp_path / package) for package in ("orchestrator", "workers"))
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": path, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)},
    ).stdout.split()
    assert found == [code_digest(), f"source-{code_digest()[:12]}"]
