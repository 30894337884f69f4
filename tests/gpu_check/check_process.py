"""The process of one check: `python check_process.py CHECK FUNCTION FINDINGS WORK [ARGUMENT…]`."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from check_record import Record  # noqa: E402


def main() -> int:
    """Run the check; what it raises is a finding."""
    name, function, findings, work, *arguments = sys.argv[1:]
    record = Record(Path(findings), name)
    try:
        module, _, attribute = function.partition(":")
        getattr(importlib.import_module(module), attribute)(record, Path(work), *arguments)
    except BaseException as error:
        traceback.print_exc()
        message = " ".join(str(error).split())
        record.failed("raised", f"{type(error).__name__}: {message}"[:1000])
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not by way of Python's end: after a sticky error of CUDA that may hang or crash, and all is written down.
    os._exit(code)
