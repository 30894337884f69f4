"""The stages that a sweep can name: of this package, of modules that it uses, of installed packages, and functions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import metadata
from typing import Any

from orchestrator.study import StageError
from orchestrator.study.function_stage import function_stage
from orchestrator.study.modules import Module, Study
from orchestrator.study.signature import check_table_function, module_of
from orchestrator.study.source import modules_of, source_digest
from orchestrator.texts import nearest
from workers.stage import Origin, Stage, join_tables
from workers.stages import STAGES

#: Installed packages name their tables in this group of entry points: `name = "package.module"` with `STAGES` in it.
ENTRY_POINTS = "alignment_sweeps.stages"

#: What a stage may be called; its artifacts lie in a folder of this name.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")


class StageTable:
    """The stages of a sweep by name. What is not this package's gets its origin when it is looked up."""

    def __init__(self, study: Study, namespace: str | None = None) -> None:
        """Begin with the stages of this package.

        Args:
            study: the folder that modules are looked for in, too.
            namespace: what tells stages of the study apart from those of others, where they have versions.
        """
        self.study = study
        self.named: Mapping[str, Stage] = STAGES
        """Stages by name, without origins."""
        self._namespace = namespace
        self._homes: dict[str, str] = {}
        """Name of a stage that is not this package's -> the module that has the table."""
        self._made: dict[Any, Stage] = {}
        self._asked = False
        """Whether the installed packages were asked for their tables."""

    def use(self, module: str) -> None:
        """Join the table `STAGES` of a module; it should import nothing heavy.

        Raises:
            StageError: it cannot be imported, has no table, or one that does not fit.
        """
        loaded = self.study.load(module)
        if not hasattr(loaded, "STAGES"):
            raise StageError(f"module {module!r} has no STAGES; give it a table, as workers/README.md shows")
        self._join(module, loaded.STAGES)

    def _join(self, module: str, table: object) -> None:
        try:
            self.named = join_tables(self.named, checked := _checked(table))
        except (TypeError, ValueError) as error:
            raise StageError(f"the table of module {module!r} cannot be used: {error}") from error
        self._homes |= dict.fromkeys(checked, module)

    def stage(
        self,
        name: str,
        inputs: Sequence[str] = (),
        declared: tuple[str, ...] | None = None,
        version: int | None = None,
    ) -> Stage:
        """Return the stage of a name, or of a function "module:name".

        Args:
            name: as it is written in the sweep.
            inputs: names of the inputs that the sweep feeds.
            declared: the metrics that the sweep declares, for functions only.
            version: likewise.

        Raises:
            StageError: there is none, or it cannot be used.
        """
        key = (name, tuple(sorted(inputs)), declared, version)
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = self._stage(name, inputs, declared, version)
        return found

    def _stage(self, name: str, inputs: Sequence[str], declared: tuple[str, ...] | None, version: int | None) -> Stage:
        if ":" in name:
            module = module_of(name)
            origin = self._origin(name, module, [module], version)
            return function_stage(self.study, name, version, inputs, declared, origin)
        if name not in self.named:
            self._ask_installed(name)
        if declared is not None or version is not None:
            what = "metrics" if declared is not None else "version"
            raise StageError(f"stage {name!r} has its {what} in its table; `{what}:` is for functions, module:function")
        stage = self.named[name]
        if name not in self._homes:
            return stage
        check_table_function(self.study, stage.function, frozenset(stage.inputs))
        if stage.together:
            check_table_function(self.study, stage.together)
        return replace(stage, origin=self._origin(name, self._homes[name], modules_of(stage), stage.version))

    def _origin(self, name: str, home: str, modules: Sequence[str], version: int | None) -> Origin:
        source = source_digest(self.study, modules)
        module = self.study.find(home)
        namespace = self._namespace or (module and _distribution(module)) or ""
        if version is not None and not namespace:
            raise StageError(
                f"stage {name!r} has a version, so its artifacts need a name that no other study has: write e.g. "
                "`namespace: my-study` at the top of the sweep"
            )
        return Origin(namespace, source, str(self.study.folder))

    def _ask_installed(self, name: str) -> None:
        """Join the tables of installed packages; they are asked only for a name that nothing else has.

        Raises:
            StageError: no table has the name.
        """
        troubles = self.join_installed()
        if name not in self.named:
            hints = "".join(f"; {each}" for each in troubles)
            raise StageError(f"there is no stage {name!r}; {nearest(name, self.named)}{hints}")

    def join_installed(self) -> list[str]:
        """Join the tables of installed packages, once; return what is wrong with those that are of no use."""
        troubles: list[str] = []
        if not self._asked:
            self._asked = True
            for point in metadata.entry_points(group=ENTRY_POINTS):
                module, _, attribute = point.value.partition(":")
                try:
                    self._join(module, getattr(self.study.load(module), attribute or "STAGES", None))
                except StageError as error:
                    of = f" of {point.dist.name}" if point.dist else ""
                    troubles.append(f"the entry point {point.name!r}{of} is of no use: {error}")
        return troubles

    def foreign_modules(self) -> list[Module]:
        """Return the modules of all looked-up stages that are not this package's, and of their tables."""
        names: dict[str, None] = dict.fromkeys(self._homes.values())
        for stage in self._made.values():
            if stage.origin:
                names |= dict.fromkeys(modules_of(stage))
        return [module for name in names if (module := self.study.find(name))]

    def edited(self) -> list[str]:
        """Return the functions of looked-up stages whose source is another one now.

        Raises:
            StageError: a module is gone, or no Python any more.
        """
        self.study.refresh()
        found = []
        for stage in self._made.values():
            if stage.origin and source_digest(self.study, modules_of(stage)) != stage.origin.source:
                found.append(stage.function)
        return found

    @property
    def foreign(self) -> bool:
        """Whether a stage was looked up that is not this package's."""
        return any(stage.origin for stage in self._made.values())


def _checked(table: object) -> Mapping[str, Stage]:
    if not isinstance(table, Mapping):
        raise TypeError(f"STAGES is of type {type(table).__name__}, not a mapping of names to stages")
    for name, stage in table.items():
        if not isinstance(stage, Stage):
            raise TypeError(f"STAGES[{name!r}] is of type {type(stage).__name__}, not a Stage")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise TypeError(f"STAGES[{name!r}]: a stage is called by letters, digits, _ and -")
    return table


def _distribution(module: Module) -> str | None:
    """Return the installed distribution that has a module."""
    return next(iter(_distributions().get(module.name.partition(".")[0], ())), None)


@cache
def _distributions() -> Mapping[str, Sequence[str]]:
    return metadata.packages_distributions()
