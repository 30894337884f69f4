"""GPUs: those that the driver of the system shows, and those that torch can use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from orchestrator.doctor.finding import Finding, ok, wrong

#: Seconds for a program that asks the driver: one that is stuck never answers.
_PATIENCE = 30
#: What torch sees, in a process of its own: a driver that hangs or crashes takes nobody along.
_ASK_TORCH = (
    "import torch; print(torch.__version__, torch.version.cuda or torch.version.hip or 'none', "
    "torch.cuda.is_available() and torch.cuda.device_count())"
)


@dataclass(frozen=True, slots=True)
class Devices:
    """The GPUs of a machine."""

    shown: tuple[str, ...] = ()
    """One line per GPU, as `nvidia-smi` shows it: name, driver, memory."""
    trouble: str = ""
    """Why they cannot be used, or asked for."""
    torch: str = ""
    """What torch says of them; empty if there are none."""


def devices() -> Devices:
    """Ask the driver, and torch if there is a GPU."""
    program = shutil.which("nvidia-smi")
    if not program:
        there = [path for path in ("/dev/nvidiactl", "/dev/kfd") if Path(path).exists()]
        return Devices(trouble=f"there is {there[0]}, but no nvidia-smi" if there == ["/dev/nvidiactl"] else "")
    shown = _ask(program, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
    if isinstance(shown, OSError | subprocess.SubprocessError):
        return Devices(trouble=f"nvidia-smi fails: {_reason(shown)}")
    lines = tuple(line.strip() for line in shown.splitlines() if line.strip())
    if not lines:
        return Devices()
    answer = _ask(sys.executable, "-c", _ASK_TORCH)
    if isinstance(answer, OSError | subprocess.SubprocessError):
        return Devices(lines, trouble=f"torch cannot be asked: {_reason(answer)}")
    version, runtime, count = answer.split()[-3:]
    if runtime == "none":
        return Devices(lines, trouble=f"torch {version} is built without CUDA")
    if not count.isdigit() or int(count) < len(lines):
        return Devices(lines, trouble=f"torch {version} (CUDA {runtime}) can use {count} of them")
    return Devices(lines, torch=f"torch {version} (CUDA {runtime}) can use all of them")


def _ask(*command: str) -> str | OSError | subprocess.SubprocessError:
    # Ray hides the GPUs from a worker that asked for none.
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE, check=True, env=environment, errors="replace"
        )
    except (OSError, subprocess.SubprocessError) as error:
        return error
    return done.stdout


def _reason(error: OSError | subprocess.SubprocessError) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        said = (error.stderr or error.stdout or "").strip().splitlines()
        return said[-1] if said else f"exit code {error.returncode}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer in {error.timeout:g} s"
    return str(error)


def gpus() -> Finding:
    """Tell which GPUs this machine has."""
    return judge(devices())


def judge(found: Devices) -> Finding:
    """Make a finding of the GPUs of a machine."""
    counted = {line: found.shown.count(line) for line in found.shown}
    shown = "; ".join(f"{count} × {line}" for line, count in counted.items())
    if found.trouble:
        remedy = "install the driver, and a torch that is built for it (https://pytorch.org/get-started)"
        return wrong("GPUs", f"{shown}: {found.trouble}" if shown else found.trouble, remedy)
    return ok("GPUs", f"{shown}; {found.torch}" if shown else "none (no nvidia-smi)")
