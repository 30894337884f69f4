"""The optional parts of this package, which need modules that not everybody installs."""

from __future__ import annotations

import importlib.util

#: Extra of `pyproject.toml` -> the modules that it brings.
_MODULES = {
    "live": ("streamlit", "plotly"),
    "report": ("altair", "vl_convert"),
    "s3": ("s3fs",),
    "search": ("cmaes", "optuna_dashboard"),
}


def lacking(extra: str) -> str | None:
    """Tell which modules of an extra are not installed, with the remedy; None where all of them are."""
    missing = [name for name in _MODULES[extra] if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    are = "is" if len(missing) == 1 else "are"
    return f"{' and '.join(missing)} {are} not installed; pip install 'alignment-sweeps[{extra}]'"
