"""Makes Ray's logical GPUs do where CUDA is absent: Python imports this by its name at the start of every worker.

A step that asks for a GPU computes on one or fails (`workers.device`), and here no process has one. So the promise of a
GPU is left open, upon which a stage takes the CPU; Ray schedules the step as it would on a GPU.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Unpromised(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `workers.device` as everybody else does, and alters it."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        if fullname != "workers.device":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec and spec.loader:
            self._loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        promise = module.promise_gpu
        module.promise_gpu = lambda promised, *more: promise(  # type: ignore[attr-defined]
            None if promised else promised, *more
        )


sys.meta_path.insert(0, _Unpromised())
