"""A sweep as a notebook has it: what the commands do, as functions that return values and print nothing."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.code import code_digest, loaded_code
from orchestrator.command import repeat_places
from orchestrator.explain.preview import preview
from orchestrator.explain.why import explain
from orchestrator.session import Session, open_document
from orchestrator.store.atomic import replace_file
from orchestrator.sweep.document import read_document
from orchestrator.sweep.mapping import document_of, to_yaml
from orchestrator.sweep.problems import Problem, SweepError

if TYPE_CHECKING:
    import optuna
    import pyarrow as pa
    from upath import UPath

    from orchestrator.events import Event
    from orchestrator.explain.estimator import Estimator
    from orchestrator.explain.progress import SweepProgress
    from orchestrator.results.study_watch import StudyWatch

#: Seconds between two reports of progress: counting the steps of a large sweep takes longer than running a small one.
_REPORT_EVERY = 0.25


@dataclass(frozen=True, slots=True)
class RunResult:
    """Where a sweep stands at the end of a run."""

    cells: Mapping[str, int]
    """Status (succeeded, failed, blocked, pending) -> how many of the chosen cells have it."""
    exit_code: int
    """That of `sweep run`: 0 all that was asked for is done, 1 cells are missing."""
    table: Path | UPath
    """The results table, one row per cell of the whole sweep; `Sweep.table` reads it anew."""
    stopped: str | None
    """Why the run ended although there were steps to run, such as a limit of the sweep; None if it did not."""
    warnings: tuple[str, ...]
    """What went wrong beside the steps: sentences, in order."""

    @property
    def finished(self) -> bool:
        """Whether all that was asked for is done."""
        return self.exit_code == 0


class Sweep:
    """An open sweep; `orchestrator.open_sweep` makes one.

    Every method looks at the store anew, calls what the command of its name calls, and prints nothing.

    >>> from orchestrator import open_sweep
    >>> world = {"stage": "world_rewards", "config": {"split": "train", "prompts": 99, "responses": 4, "seed": "$seed"}}
    >>> labels = {"sampling": "random", "scale": 1.0, "annotations": 50, "beta": "$beta", "seed": "$seed"}
    >>> sweep = open_sweep({
    ...     "name": "noise", "question": "How many labels does noise flip?",
    ...     "axes": {"beta": [0.5, 1, 10], "seed": range(2)},
    ...     "stages": {"world": world, "annotate": {"inputs": {"scores": "world"}, "config": labels}},
    ... })                                             # or a file: open_sweep("sweeps/quickstart.yaml")
    >>> {name: steps["to_run"] for name, steps in sweep.plan()["steps"].items()}       # nothing is run yet
    {'world': 2, 'annotate': 6}
    >>> result = sweep.run(on_progress=print, inline=True)         # without `inline` on Ray; the same call goes on
    1/8 steps done, 0 failed, ...
    8/8 steps done, 0 failed, running: nothing, 0 s left
    >>> result.finished, result.cells
    (True, {'succeeded': 6})
    >>> frame = sweep.table().to_pandas()                          # one row per cell
    >>> sweep.why("beta=10,seed=0")["status"]
    'succeeded'
    """

    def __init__(self, session: Session, text: bytes | None = None) -> None:
        """Take over an open session.

        Args:
            session: the sweep.
            text: the content of its file, where that is written when the sweep is run; None if the file is there.
        """
        self._session = session
        self._text = text

    def __repr__(self) -> str:
        return f"<Sweep {self.name}: {self.cells:,} cells, in {self.folder}>"

    @property
    def name(self) -> str:
        """The name that the sweep gives itself."""
        return self._session.spec.name

    @property
    def file(self) -> Path:
        """The sweep file. That of a sweep of values is there once it was run, for `sweep status FILE` in a shell."""
        return self._session.file

    @property
    def cells(self) -> int:
        """The number of chosen cells."""
        return len(self._session.chosen)

    @property
    def folder(self) -> Path | UPath:
        """The output folder of this sweep, with its results table."""
        return self._session.outputs.folder

    @property
    def store(self) -> str:
        """The store of artifacts, a folder or a URI, which sweeps share."""
        return self._session.outputs.store

    def plan(self, cpus: float | None = None, gpus: float = 0) -> dict[str, Any]:
        """Tell what would run, why, and at what cost: what `sweep plan --json` prints.

        Args:
            cpus: cores of the cluster, for the wall time; None for those of this machine.
            gpus: GPUs of the cluster.

        Returns:
            `cells`: how many are chosen. `steps`: entry -> `total`, `committed`, `to_run`, `failed`, `blocked` (numbers
            of steps), `reasons` (why steps are not there -> how many), and `expected`, where steps like these were run
            before (see `explain.forecast.Cost`). `expected`: `cpu_hours`, `gpu_hours`, `bytes`, `wall_seconds` (least,
            most), and `unknown_steps` of `steps` that come on top. Of a search also `search`, and for what may come
            `may_come` and `expected_to_come` beside these.

        Raises:
            StoreError: the store cannot be read.
        """
        return preview(replace(self._session), cpus, gpus)

    def status(self) -> dict[str, Any]:
        """Tell where the sweep stands, also while another process runs it: what `sweep status --json` prints.

        Returns:
            `cells`: how many are chosen. `may_come`: how many `studies` may add at most; of each of these `study`,
            `budget`, `trials` (state -> how many), `may_come`. `cells_by_status`: status -> how many. `steps`: entry ->
            `total`, `committed`, `running`, `pending`, `failed`, `blocked` (numbers of steps), `per_minute` and
            `seconds` (of one step; both None without a living driver). `errors`: groups of cells that ended alike.
            `live`: whether a driver lives. `left`: the seconds that what is decided will still take (`low`, `high`, and
            `unknown` of `steps` that come on top), or None.

        Raises:
            StoreError: the store cannot be read.
        """
        from orchestrator.explain.status import status

        return status(replace(self._session))

    def study(self, name: str | None = None, /, **coords: Any) -> optuna.Study:
        """Return a study of a search as an ordinary one of Optuna, as it is now.

        It is a copy in memory: what is done to it changes nothing here. Of choices its trials have the names.

        >>> study = open_sweep("tune.yaml").study("tuning", policy="tiny", reward_model="bt_mlp")   # doctest: +SKIP
        >>> study.best_value, study.best_params                                                     # doctest: +SKIP
        >>> optuna.visualization.plot_contour(study)                                                # doctest: +SKIP

        Args:
            name: of the search or the study, `tuning` or `tuning/tiny,bt_mlp`; may be left out.
            coords: axis -> value, as many as make it unique.

        Raises:
            SweepError: nothing is searched, or no study or several have such a name and coordinates.
            StoreError: the store cannot be read, or a record is damaged.
        """
        from orchestrator.results.choose import choose_study
        from orchestrator.search.optuna_study import as_optuna

        session = replace(self._session)
        if session.spec.searched is None:
            raise SweepError([Problem("study", "", f"{self.name} has no `search`, so there are no studies")])
        return as_optuna(choose_study(session.study_views(), name, coords))

    def why(self, cell: str) -> dict[str, Any]:
        """Explain a cell: what `sweep why --json` prints.

        Args:
            cell: its id, or the beginning of one, or as many `axis=value,axis=value` as make it unique.

        Returns:
            `cell_id`, `file`, `coords` (axis -> value), `status`, `key`, `error_class`, `error`, `log` (None without an
            error), and `steps`, a list in the order of the sweep: `entry`, `stage`, `key`, `state`, `because` (why it
            is not there), `damage`, `cells` (that share it), `config`, `attempts`.

        Raises:
            SweepError: no cell or several have such a name.
            StoreError: the store cannot be read.
        """
        return explain(replace(self._session), cell)

    def show(self, cell: str, stage: str | None = None) -> dict[str, Any]:
        """Show what a cell made, readable: what `sweep show --json` prints.

        Args:
            cell: its id, or the beginning of one, or as many `axis=value,axis=value` as make it unique.
            stage: only this entry, in full.

        Returns:
            The cell and, for each entry, its config, metrics, files, and views of these; see `explain.shown.show`.

        Raises:
            SweepError: no cell or several have such a name, or there is no such entry.
            StoreError: the store cannot be read.
        """
        from orchestrator.explain.shown import show

        return show(replace(self._session), cell, stage)

    def claims(self, confidence: float = 0.95) -> dict[str, Any]:
        """Test the claims that the sweep declares: what `sweep claims --json` prints.

        Raises:
            SweepError, StoreError: it declares none, or no study of a search is finished; results cannot be read.
        """
        from orchestrator.analysis.tested import examine

        return examine(replace(self._session), confidence).record()

    def table(self) -> pa.Table:
        """Rebuild the results table from the store, write it beside the store, and return it.

        Returns:
            One row per chosen cell: `cell_id`, the axes, `status`, `error_class`, `error`, `attempts`, `seconds`,
            metrics (null where `undefined` says why), `key`, `code_commit`, `log`. `to_pandas` makes it a data frame.

        Raises:
            StoreError: the store cannot be read, or the table cannot be written.
        """
        return replace(self._session).table()

    def run(
        self,
        on_progress: Callable[[SweepProgress], object] | None = None,
        *,
        inline: bool = False,
        address: str | None = None,
        stage: str | None = None,
        error: str | None = None,
        max_cells: int | None = None,
        tracking_uri: str | None = None,
    ) -> RunResult:
        """Run what is missing, as `sweep run` does: the same call again resumes, retries what failed, or does nothing.

        It may be interrupted at any instant, by Ctrl-C or by what `on_progress` raises: running steps are abandoned,
        the rest is kept. When the exception arrives, the table is written, and Ray and the MLflow writer have ended.

        Args:
            on_progress: called with how far the run is, a few times a second and at the end; `print` will do. Outside
                of the main thread, where Ctrl-C does not arrive, it may raise an exception to interrupt the run.
            inline: run the steps one by one in this process, without Ray. What they print goes to their logs; so does
                what other threads print meanwhile.
            address: the Ray cluster; None takes RAY_ADDRESS, or else starts Ray on this machine for this run.
            stage: run only this entry and its dependencies.
            error: run only the cells that ended with this error class.
            max_cells: run at most this many of the unfinished cells.
            tracking_uri: MLflow; None takes that of the sweep, else MLFLOW_TRACKING_URI, else SQLite in the outputs.

        Returns:
            Where the chosen cells stand; failed cells do not raise.

        Raises:
            KeyboardInterrupt: Ctrl-C.
            SweepError: there is no such stage, no cell ended with such an error, or code was edited meanwhile.
            UnreachableError: no cluster answers at the address; nothing was run.
            StoreError: the store cannot be used, or the table could not be written.
        """
        # Only now: it imports Arrow and MLflow's client.
        from orchestrator.drive import drive
        from orchestrator.run.shutdown import INTERRUPTED, TERMINATED

        if max_cells is not None and max_cells < 1:
            raise ValueError(f"max_cells is {max_cells}, expected at least 1")
        _refuse_edited_code()
        session = replace(self._session)
        session = session if stage is None else session.up_to(stage)
        session = session if error is None and max_cells is None else session.narrow(error, max_cells)
        if self._text is not None:
            replace_file(self.file, self._text)
        listener = _Listener(session, on_progress)
        code = drive(session, address, inline, tracking_uri, listener)
        if code == TERMINATED:
            # Whoever listened before this run ends the process, as it would have done without a run.
            signal.raise_signal(signal.SIGTERM)
        if listener.raised is not None:
            raise listener.raised
        if code == INTERRUPTED:
            raise KeyboardInterrupt("what was running is abandoned, the rest is kept; run() goes on")
        listener.report()
        return RunResult(listener.cells, code, session.outputs.results, listener.stopped, tuple(listener.warnings))


class _Listener:
    """Takes in the events of a run, and tells how far it is."""

    def __init__(self, session: Session, on_progress: Callable[[SweepProgress], object] | None) -> None:
        self._session = session
        self._on_progress = on_progress
        self._estimator: Estimator | None = None
        self._watch: StudyWatch | None = None
        self._due = 0.0
        self.cells: Mapping[str, int] = {}
        self.stopped: str | None = None
        self.warnings: list[str] = []
        self.raised: BaseException | None = None
        """What `on_progress` raised."""

    def __call__(self, event: Event) -> None:
        from orchestrator.events import Finished, LoopEnded, LoopStarted, Progressed, Published, warning

        if found := warning(event):
            self.warnings.append(found)
        match event:
            case LoopStarted(estimator, watch):
                self._estimator, self._watch = estimator, watch
            case Progressed() if time.monotonic() >= self._due:
                try:
                    self.report()
                except BaseException as error:
                    # The loop ends as it does after Ctrl-C, and then this is raised again.
                    self.raised = error
                    raise KeyboardInterrupt from error
                self._due = time.monotonic() + _REPORT_EVERY
            case LoopEnded("stopped" | "lost", reason):
                self.stopped = reason
            case Published(delivered) if delivered.error:
                left = f"; {delivered.left} runs wait for the next run" if delivered.left else ""
                self.warnings.append(f"{delivered.error}{left}")
            case Finished(table):
                self.cells = dict(Counter(self._session.chosen_rows(table)["status"].to_pylist()))

    def report(self) -> None:
        """Tell how far the run is."""
        from orchestrator.explain.eta import Eta
        from orchestrator.explain.progress import progress_of

        if self._on_progress:
            left = self._estimator.eta() if self._estimator else Eta(0, 0, 0, 0)
            may_come = len(self._watch.may_come()) if self._watch else 0
            self._on_progress(progress_of(self._session.schedule, left, may_come))


def open_sweep(
    sweep: str | Path | Mapping[str, Any],
    overrides: Iterable[str],
    only: Iterable[str],
    exclude: Iterable[str],
    outputs: str | Path | None,
    store: str | Path | None,
) -> Sweep:
    """Open a sweep; see `orchestrator.open_sweep`."""
    folder = Path.cwd()
    places = _place(outputs), _place(store)
    chosen = _words(overrides), _words(only), _words(exclude)
    if not isinstance(sweep, Mapping):
        session = open_document(read_document(Path(sweep).expanduser()), *chosen, *places)
        _refuse_edited_code()
        return Sweep(replace(session, file=session.file.absolute()))
    document = document_of(sweep, folder)
    session = open_document(document, *chosen, *places)
    _refuse_edited_code()
    # The file that will say the same has the overrides and the output root in it.
    file = session.outputs.local / "sweeps" / session.spec.name / "sweep.yaml"
    session = replace(session, file=file, places=tuple(repeat_places((), None, places[1])))
    comments = [f"Written by orchestrator.open_sweep. In a shell: {session.command('status')}"]
    if session.spec.available.foreign:
        comments.append(f"The modules of its stages lie in {folder}: in a shell PYTHONPATH names that.")
    return Sweep(session, to_yaml(document, str(session.outputs.root), comments))


def _refuse_edited_code() -> None:
    """Raise SweepError where a file of this package was edited since this process loaded it.

    A command loads what is there when it is given. Here, Ray's workers would run the new code for the old one's plan.
    """
    if loaded_code() != code_digest():
        message = "a file of orchestrator or workers was edited since this process loaded it; restart the kernel"
        raise SweepError([Problem("", "", message)])


def _words(texts: str | Iterable[str]) -> list[str]:
    """List several texts; one alone is not taken for its letters."""
    return [texts] if isinstance(texts, str) else list(texts)


def _place(place: str | Path | None) -> str | None:
    """Make a folder absolute; a URI stays as it is."""
    if place is None or "://" in str(place):
        return None if place is None else str(place)
    return str(Path(place).expanduser().absolute())
