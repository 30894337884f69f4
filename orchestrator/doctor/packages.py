"""Versions of Python and of the packages that results depend on."""

from __future__ import annotations

import platform
from importlib import metadata

from orchestrator.code import PACKAGES
from orchestrator.doctor.finding import Finding, ok, warning, wrong

#: This package, and those whose versions change numbers or files.
THIS = "alignment-sweeps"
MATTER = (
    THIS, "ray", "torch", "transformers", "trl", "peft", "tokenizers", "datasets", "accelerate", "safetensors",
    "sentence-transformers", "lightgbm", "scikit-learn", "numpy", "scipy", "pandas", "pyarrow", "pydantic",
    "s3fs", "vllm",
)  # fmt: skip


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that matter; None for one that is not installed."""
    found: dict[str, str | None] = {"Python": platform.python_version()}
    for name in MATTER:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def requirements() -> list[Finding]:
    """Compare what is installed with what this package asks for."""
    python = f"{platform.python_version()} ({platform.python_implementation()}, {platform.machine()})"
    return [ok("Python", python), _packages()]


def _packages() -> Finding:
    from packaging.requirements import Requirement

    try:
        own = metadata.version(THIS)
        lines = metadata.requires(THIS) or []
    except metadata.PackageNotFoundError:
        seen = f"alignment-sweeps is not installed; it runs from {PACKAGES[0].parent}"
        return warning("packages", seen, f"pip install -e {PACKAGES[0].parent}")
    bad, count = [], 0
    for line in lines:
        required = Requirement(line)
        # Extras are asked for by the command that needs them.
        if required.marker and not required.marker.evaluate({"extra": ""}):
            continue
        count += 1
        try:
            found = metadata.version(required.name)
        except metadata.PackageNotFoundError:
            bad.append(f"{required.name} is not installed")
            continue
        if not required.specifier.contains(found, prereleases=True):
            bad.append(f"{required.name} is {found}, not {required.specifier}")
    if bad:
        return wrong("packages", f"alignment-sweeps {own}: {'; '.join(bad)}", f"pip install 'alignment-sweeps=={own}'")
    return ok("packages", f"alignment-sweeps {own}, and all {count} packages that it requires")
