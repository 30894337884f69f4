"""The machine that is checked, as the report names it; printed as JSON, by a process that may hang or crash."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = (
    "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "safetensors",
    "sentence-transformers", "numpy", "pyarrow", "lightgbm", "ray",
)  # fmt: skip


def describe_machine() -> dict[str, Any]:
    """Return what is known of the machine; "unknown" stands for what cannot be asked."""
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "nvidia_smi": _nvidia_smi(),
        **_devices(),
    }


def _devices() -> dict[str, Any]:
    """Return the devices that torch can use, and why there are none."""
    try:
        import torch
    except Exception as error:
        return {"devices": [], "cuda": "unknown", "no_device": f"torch cannot be imported: {error}"}
    cuda = str(torch.version.cuda or torch.version.hip or "none")
    if cuda == "none":
        return {"devices": [], "cuda": cuda, "no_device": f"torch {torch.__version__} is built without CUDA"}
    if not torch.cuda.is_available():
        return {"devices": [], "cuda": cuda, "no_device": f"torch {torch.__version__} (CUDA {cuda}) sees no device"}
    devices = []
    for number in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        devices.append(
            {
                "name": found.name, "capability": f"{found.major}.{found.minor}",
                "multiprocessors": found.multi_processor_count, "memory_bytes": total, "free_bytes": free,
            }
        )  # fmt: skip
    return {"devices": devices, "cuda": cuda, "no_device": ""}


def _nvidia_smi() -> list[str]:
    """Return name, driver and memory of each GPU, as the driver's own program shows them."""
    asked = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,memory.used", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return [f"nvidia-smi: {type(error).__name__}"]
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    json.dump(describe_machine(), sys.stdout)
