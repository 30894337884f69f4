"""What is uploaded with a job: what git and Ray do not ignore, below five megabytes."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package
from submissions import REPOSITORY

from orchestrator.cli.job.package import LIMIT, package_files
from orchestrator.study.copy import excludes


def packaged_by_ray(root: Path, archive: Path) -> set[str]:
    """The files of the package that Ray makes and uploads."""
    left_out = [*get_runtime_env_default_excludes(), *excludes(root)]
    create_package(str(root), archive, include_gitignore=True, excludes=left_out)
    # Empty folders are in it too.
    return {name for name in zipfile.ZipFile(archive).namelist() if not name.endswith("/")}


def test_the_packages_of_this_repository_stay_below_five_megabytes(tmp_path: Path) -> None:
    files = package_files(REPOSITORY, excludes(REPOSITORY))
    names = {path.as_posix() for path in files}
    assert {
        "sweeps/quickstart.yaml",
        "sweeps/data/helpful.jsonl",
        "orchestrator/cli/app.py",
        "workers/reward_models/fit_mlp.py",
    } <= names
    assert not {path.parts[0] for path in files} & {".git", ".venv", "tests", "outputs", ".mypy_cache"}
    assert packaged_by_ray(REPOSITORY, tmp_path / "submit.zip") == names
    assert sum(files.values()) <= LIMIT == 5_000_000
    # As `ray job submit --working-dir .` makes it.
    plain = tmp_path / "plain.zip"
    create_package(str(REPOSITORY), plain, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    assert plain.stat().st_size <= LIMIT


def test_a_package_is_what_git_and_ray_do_not_ignore_and_never_secrets_or_tables(
    checkout: Path, tmp_path: Path
) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=checkout, check=True)
    (checkout / ".git" / "info" / "exclude").write_text("odd \\[name\\].txt\n")
    (checkout / ".gitignore").write_text("notes/\n")
    (checkout / ".rayignore").write_text("*.big\n")
    ignored = (
        "odd [name].txt",
        "notes/a.txt",
        "a.big",
        "x/t.parquet",
        ".env",
        ".netrc",
        ".ray/auth_token",
        "key.pem",
        "tests/t.py",
        "deep/er/own.txt",
    )
    for name in (*ignored, "odd n.txt", "kept.txt", "own.txt", "deep/er/kept.txt"):
        (checkout / name).parent.mkdir(exist_ok=True, parents=True)
        (checkout / name).write_text("some")
    (checkout / "deep" / ".rayignore").write_text("own.txt\n")
    names = {path.as_posix() for path in package_files(checkout, excludes(checkout))}
    assert packaged_by_ray(checkout, tmp_path / "submit.zip") == names
    assert {name for name in names if not name.startswith(("orchestrator/", "workers/"))} == {
        ".gitignore", ".rayignore", "odd n.txt", "kept.txt", "own.txt", "deep/.rayignore", "deep/er/kept.txt",
        "toy.py", "toy.yaml",
    }  # fmt: skip
