"""The modules of a study: the folder of a sweep file, after everything that is installed.

Two studies may have modules of the same names, also in one process (`sweep gc a.yaml b.yaml`, a notebook). The modules
keep their names, by which pickle and child processes know them; those of the other study are set aside meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import site
import sys
import threading
from dataclasses import dataclass
from functools import cached_property
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from orchestrator.code import PACKAGES
from orchestrator.namesakes import OUR_NAMES
from orchestrator.study import StageError
from workers.stage import Origin


@dataclass(frozen=True)
class Module:
    """The file of a module, which need not be imported to be known."""

    name: str
    file: Path
    root: Path
    """The folder on the import path in which its top-level module or package lies."""
    is_package: bool

    @cached_property
    def installed(self) -> bool:
        """Whether it lies among installed packages, and not where somebody works on it."""
        return str(self.root) in (*site.getsitepackages(), site.getusersitepackages())

    def shares_study(self, other: Module) -> bool:
        """Tell whether another module is of the same study or the same installed package."""
        tops = {each.name.partition(".")[0] for each in (self, other)}
        return self.root == other.root and (len(tops) == 1 or not (self.installed or tops & set(OUR_NAMES)))


class Study:
    """The folder of a sweep file, with the modules that can be imported there."""

    def __init__(self, folder: Path) -> None:
        """Address the folder; nothing is read yet. `study_at` gives one that remembers what it loaded."""
        self.folder = folder
        self.is_copy = False
        """Whether it is a worker's copy of the folder."""
        self._found: dict[str, Module | None] = {}
        self._digests: dict[str, str] = {}
        """Loaded module of the folder -> digest of its file when it was loaded."""
        self._modules = 0
        """Number of loaded modules when they were looked at last."""
        self._aside: dict[str, ModuleType] = {}
        """Its loaded modules while another study is active."""
        self.made: dict[Any, Any] = {}
        """What was made of its functions, by whoever makes it; forgotten when it is refreshed."""

    def find(self, name: str) -> Module | None:
        """Find the source file of a module without importing anything; None if there is none.

        Raises:
            StageError: an installed module hides one of the folder.
        """
        with _LOCK:
            if name not in self._found:
                self.activate()
                self._found[name] = self._find(name)
            return self._found[name]

    def _find(self, name: str) -> Module | None:
        top, *rest = name.split(".")
        if not all(part.isidentifier() and len(part) <= 100 for part in (top, *rest)):
            return None
        spec = _top_spec(top)
        self._refuse_hidden(top, spec)
        if spec is None:
            return None
        file = Path(spec.origin) if spec.origin else None
        folders = [Path(each) for each in spec.submodule_search_locations or ()]
        for part in rest:
            # As Python's import would look, which would run the packages above.
            file, folders = _below(folders, part)
        if file is None or file.suffix != ".py":
            return None
        # The file may be a link to another folder; it is of this one all the same.
        is_package = file.name == "__init__.py"
        above = file.absolute().parents[len(rest) + is_package]
        root = above.resolve()
        return Module(name, root / file.absolute().relative_to(above), root, is_package)

    def _refuse_hidden(self, top: str, spec: ModuleSpec | None) -> None:
        here = [each for each in (self.folder / top / "__init__.py", self.folder / f"{top}.py") if each.is_file()]
        found = spec.origin if spec else None
        # The source of a stage is compared with that of the driver, wherever a worker finds it.
        if here and found and not self.is_copy and Path(found).resolve() != here[0].resolve():
            raise StageError(f"module {top!r} is {found}, which hides {here[0]}: give yours another name")

    def names(self) -> list[str]:
        """Return the names of the modules and packages at the top of the folder."""
        files = [each.stem for each in self.folder.glob("*.py") if each.is_file()]
        return sorted([*files, *(each.parent.name for each in self.folder.glob("*/__init__.py"))])

    def load(self, name: str) -> ModuleType:
        """Import a module.

        Raises:
            StageError: it cannot be imported, for whatever reason.
        """
        with _LOCK:
            self.activate()
            self.find(name)
            try:
                # Standard output is for the answer of a command, which may be JSON.
                with contextlib.redirect_stdout(sys.stderr):
                    module = importlib.import_module(name)
            # Whatever a person's module raises: a mistake in it is theirs to mend.
            except (Exception, SystemExit) as error:
                reason = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
                raise StageError(
                    f"module {name!r} cannot be imported: {reason}; it is looked for in {self.folder}, too"
                ) from error
            self.remember()
            return module

    def activate(self) -> None:
        """Make the modules of this folder those that imports find, in the place of those of another study."""
        global _active
        if _active is self:
            return
        with _LOCK:
            if _active is not None:
                _active._set_aside()
            _active = self
            others = _STUDIES.keys() - {self.folder}
            kept = [each for each in sys.path if Path(each or ".").resolve() not in others]
            # The root of this repository may be a study too, and must be found all the same.
            homes = [each for each in sys.path if Path(each or ".").resolve() in others & _HOMES]
            sys.path[:] = kept
            places = [Path(each or ".").resolve() for each in kept]
            if self.folder not in places:
                # Last: what is installed comes first, as everybody's imports of it expect. A copy replaces what Ray
                # puts on the path of its workers, the working directory of a job.
                here = Path.cwd().resolve()
                at = places.index(here) if self.is_copy and here in places else len(places)
                sys.path.insert(at, str(self.folder))
            sys.path += homes
            importlib.invalidate_caches()
            sys.modules.update(self._aside)
            self._aside = {}

    def refresh(self) -> None:
        """Forget what was found, and the loaded modules of the folder if a file of theirs was edited since."""
        with _LOCK:
            self._found.clear()
            self.made.clear()
            if _active is self:
                importlib.invalidate_caches()
                self.remember()
            modules = self._own() if _active is self else self._aside
            if any(_digest_of(modules.get(name)) != digest for name, digest in self._digests.items()):
                for name, module in list(modules.items()):
                    (sys.modules if _active is self else modules).pop(name, None)
                    # Python takes a file that is edited twice in one second, and as long as before, for the first one.
                    with contextlib.suppress(OSError):
                        Path(getattr(module, "__cached__", None) or "").unlink()
                self._digests.clear()
                # As many may be loaded again, and are others then.
                self._modules = 0

    def _set_aside(self) -> None:
        self.remember()
        self._aside = self._own()
        for name in self._aside:
            del sys.modules[name]

    def remember(self) -> None:
        """Note the files of the loaded modules of the folder as they are now; call it after an import."""
        if self._modules == len(sys.modules):
            return
        for name, module in self._own().items():
            if name not in self._digests:
                self._digests[name] = _digest_of(module)
        self._modules = len(sys.modules)

    def _own(self) -> dict[str, ModuleType]:
        """Return the loaded modules of the folder, without our packages where it is the root of this repository."""
        loaded = ((name, module) for name, module in list(sys.modules.items()) if "." not in name)
        tops = {name for name, module in loaded if name not in OUR_NAMES and self._holds(module)}
        return {name: module for name, module in list(sys.modules.items()) if name.partition(".")[0] in tops}

    def _holds(self, module: ModuleType) -> bool:
        # Where None stands, a module may not be imported.
        if getattr(module, "__name__", "__main__") == "__main__":
            return False
        places = [*(getattr(module, "__path__", None) or ())] or [getattr(module, "__file__", None)]
        return any(place and Path(place).parent.resolve() == self.folder for place in places)


def study_at(folder: Path) -> Study:
    """Return the study of a folder: one per process and folder, which knows what it loaded."""
    folder = folder.resolve()
    with _LOCK:
        return _STUDIES.setdefault(folder, Study(folder))


def use_copy(copy: Path, original: Path) -> None:
    """Take a copy of a study for the study, in a worker of another machine or one that must not see edits."""
    study = study_at(copy)
    study.is_copy = True
    # As the driver names it: here the path may be a link, or lead nowhere.
    _COPIES[original] = study
    # What Ray put on the path of this worker is not the study.
    study_at(original)
    study.activate()


def study_of(origin: Origin) -> Study:
    """Return the study of a stage: the copy of it that this process was given, else the folder itself."""
    folder = Path(origin.folder)
    return _COPIES.get(folder) or study_at(folder)


_LOCK = threading.RLock()
_STUDIES: dict[Path, Study] = {}
#: The folders that this package's own packages lie in.
_HOMES = frozenset(each.parent.resolve() for each in PACKAGES)
#: Folder of a study -> the copy of it that this process was given.
_COPIES: dict[Path, Study] = {}
_active: Study | None = None


def _top_spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except ValueError:
        # A module that something put there without a spec.
        return None


def _below(folders: list[Path], name: str) -> tuple[Path | None, list[Path]]:
    """Find a module in the folders of its package: its file, None for a folder without any, and its own folders."""
    for folder in folders:
        for file in (folder / name / "__init__.py", folder / f"{name}.py"):
            if file.is_file():
                return file, [file.parent] if file.name == "__init__.py" else []
    return None, [each for folder in folders if (each := folder / name).is_dir()]


def _digest_of(module: ModuleType | None) -> str:
    file = getattr(module, "__file__", None)
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
    except OSError:
        return "gone"
