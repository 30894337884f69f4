"""One sweep whose question, labels, errors, output and file names are hostile, and every way out of it."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from command_server import sweep
from markdown_it import MarkdownIt

from orchestrator.analysis.summary import format_summary, summarise
from orchestrator.results.format import Format, escape_markdown, export, markdown_code
from orchestrator.results.parquet import read_results
from orchestrator.session import open_session
from orchestrator.tracking.experiment import experiment_of
from orchestrator.tracking.runs import Projection

#: Colour, a hyperlink, an unfinished sequence, a line that is written over, letters that run backwards, markup of Rich,
#: HTML, Markdown and LaTeX, and what JavaScript takes for the end of a line.
TERMINAL = "\x1b[31mred\x1b]8;;http://evil.example\x07link\x1b]8;;\x07\rover \u202edrow \x9b2J \x1b[ \x7f"
MARKUP = (
    "[bold red]x[/] :fire: <script>pwned()</script> <img src=http://evil.example/x onerror=pwned()> ![i](http://evil.example/t)"
    " [a](javascript:pwned()) **b** `c` ``d | \\input{/etc/passwd} $x$ & 50% # _ ~~e~~ ^ \u2028end"
)
FORMULAS = ('=HYPERLINK("http://evil.example",1)', "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", " =1")
#: Two that LaTeX would take for an argument of the line before them.
OTHERS = ("[2cm] x", "* y", "-1.5", "'; DROP TABLE runs; -- \"", "two\nlines")
LABELS = (*FORMULAS, *OTHERS, TERMINAL + MARKUP)

STAGES = f"""
from pathlib import Path

TEXT = {TERMINAL + MARKUP!r}


def make(out: Path, text: str) -> dict[str, float]:
    "[bold]Makes[/] <b>something</b> of \\x1b[31mred."
    print(TEXT, text)
    (out / "=cmd <b>[red].csv").write_text("a,b\\n" + TEXT.replace("\\r", "") + ",1\\n")
    (out / "text.txt").write_text(TEXT)
    return {{"gain": -0.5 - len(text)}}


def judge(data: Path, text: str, seed: int) -> dict[str, float]:
    if seed:
        raise ValueError(TEXT + text)
    return {{"loss": -1.25}}
"""

#: What moves a terminal, turns the direction of a line, or ends a string.
ODD = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study, which was run and has a report."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "evil_stages.py").write_text(STAGES)
    document = {
        "name": "hostile",
        "question": TERMINAL + MARKUP,
        "axes": {"text": LABELS, "seed": [0, 1]},
        "stages": {
            "make": {"stage": "evil_stages:make", "metrics": ["gain"], "config": {"text": "$text"}},
            "judge": {
                "stage": "evil_stages:judge", "metrics": ["loss"], "inputs": {"data": "make"},
                "config": {"text": "$text", "seed": "$seed"},
            },
        },
        "results": ["make", "judge"],
        "tracking": False,
        "summary": {"by": ["text"]},
        "analysis": {
            "primary": {"metric": "gain", "better": "higher"},
            "claims": {LABELS[0]: {"compare": {"text": LABELS[:2]}}},
        },
    }  # fmt: skip
    # JSON is YAML, and has a way to write each of these characters.
    (folder / "hostile.yaml").write_text(json.dumps(document))
    (folder / "run.txt").write_text(said(folder, "run", "hostile.yaml", "--inline", code=1))
    said(folder, "report", "hostile.yaml", "--output", "report")
    return folder


@pytest.fixture(scope="module")
def table(folder: Path) -> pa.Table:
    """Its results."""
    return read_results(folder / "outputs" / "sweeps" / "hostile")


@pytest.fixture(scope="module")
def summary(folder: Path, table: pa.Table) -> pa.Table:
    """Their means."""
    return summarise(table, open_session(folder / "hostile.yaml").spec, ("text",))


def said(folder: Path, *arguments: str, code: int = 0) -> str:
    """All that a command prints, of which nothing moves a terminal."""
    done = sweep(folder, *arguments)
    assert done.returncode == code, done.stderr
    for text in (done.stdout, done.stderr):
        assert not ODD.search(text), (arguments, ODD.search(text))
    return done.stdout


def test_no_command_moves_a_terminal_whatever_a_sweep_and_its_stages_say(folder: Path, table: pa.Table) -> None:
    # The table itself has the labels as they are.
    assert table["text"].to_pylist()[::2] == list(LABELS)
    # Live lines of the run name steps by their labels.
    assert "failed judge text=redlink\nover " in (folder / "run.txt").read_text()
    cell = table["cell_id"].to_pylist()[-1]
    for words in (("why", cell), ("show", cell), ("results", "--cells"), ("compare", "text")):
        assert "[bold red]x[/] :fire: <script>" in said(folder, words[0], "hostile.yaml", *words[1:])
    said(folder, "plan", "hostile.yaml")
    said(folder, "status", "hostile.yaml")
    said(folder, "results", "hostile.yaml", "--sql", "select text as '\x1b[31m' from results")
    said(folder, "why", "hostile.yaml", "\x1b[31mx", code=2)
    assert "[bold]Makes[/] <b>something</b>" in said(folder, "stages", "evil_stages:make")


def test_a_spreadsheet_computes_nothing_of_an_export_and_numbers_are_read_back(table: pa.Table) -> None:
    text = export(table, Format.CSV).decode()
    assert not ODD.search(text)
    cells = pd.read_csv(io.StringIO(text))
    assert cells["gain"].tolist() == [-0.5 - len(label) for label in LABELS for _ in (0, 1)]
    texts = [str(value) for column in table.column_names for value in cells[column] if isinstance(value, str)]
    assert not [text for text in texts if text != "-1.5" and re.match(r"\s*[=+@-]", text)]
    labels = cells["text"].tolist()[::2]
    assert labels[:4] == [f"'{label}" for label in FORMULAS[:4]]
    assert labels[len(FORMULAS) :][:5] == list(OTHERS)
    plain = pa.array(["=a", "b", None])
    for kind in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())):
        assert export(pa.table({"x": plain.cast(kind)}), Format.CSV).decode() == '"x"\n"\'=a"\n"b"\n\n'
    assert export(pa.table({"=a": [-1.5]}), Format.CSV).decode() == '"\'=a"\n-1.5\n'


def test_latex_gets_no_command_and_no_argument(summary: pa.Table) -> None:
    text = export(format_summary(summary), Format.LATEX).decode()
    text = re.sub(r"(?<=& )\{([^{}&]*)\}(?= (?:&|\\\\))", r"\1", text)  # headings of columns that siunitx aligns
    ours = (
        r"\\(begin|end)\{tabular\}(\{[lrS]+\})?|\\pm|\\ldots\{\}"
        r"|\\(top|mid|bottom)rule|\\text\w+\{\}|\$\\pm\$|\\[&%$#_{}]|\\\\$|^\{\}"
    )
    assert not ODD.search(text)
    assert not re.search(r"[\\{}$%#_^~]", re.sub(ours, "", text, flags=re.MULTILINE))
    assert not re.search(r"(\\\\|rule)\s*[\[*]", text)
    assert len(text.splitlines()) == 6 + len(LABELS)
    plain = export(format_summary(summary), Format.TABLE).decode()
    assert not ODD.search(plain)
    assert len(plain.splitlines()) == 1 + len(LABELS)


def rendered(text: str) -> Iterator[tuple[str, str]]:
    """What a Markdown page makes of a text: kinds and contents."""
    parser = MarkdownIt("commonmark").enable("table").enable("strikethrough")
    for token in parser.parse(text):
        yield token.type, token.content
        for child in token.children or ():
            yield child.type, child.content


#: Of Markdown that we write ourselves.
OUR_MARKDOWN = {"inline", "text", "text_special", "softbreak", "code_inline", "strong_open", "strong_close"}


def test_markdown_shows_texts_as_texts_in_files_and_in_what_mlflow_is_told(folder: Path, summary: pa.Table) -> None:
    pages = [path.read_text() for path in (folder / "report" / "tables").iterdir()]
    assert len(pages) > 4
    pages.append(export(format_summary(summary), Format.MD).decode())
    session = open_session(folder / "hostile.yaml")
    told = experiment_of(Projection(session.plan), session.file, session.outputs, "sqlite:///x", summary)
    notes = (told.description, told.note)
    for page in (*pages, *notes):
        assert not ODD.search(page)
        kinds = {kind for kind, _ in rendered(page)}
        assert {
            kind for kind in kinds if not re.match(r"(table|thead|tbody|tr|th|td|paragraph)_", kind)
        } <= OUR_MARKDOWN
    # The question is bold, and nothing in it is.
    assert Counter(kind for kind, _ in rendered(told.description))["strong_open"] == 1
    assert ("code_inline", 'tags.`sweep.kind` = "cell"') in list(rendered(told.description))
    for text in (MARKUP, TERMINAL, "`", "``", "a`b", "| |", "~~x~~"):
        line = [content for kind, content in rendered(f"a {escape_markdown(text)} b") if kind == "inline"]
        assert len(line) == 1
        assert [kind for kind, _ in rendered(f"a {markdown_code(text)} b")].count("code_inline") == 1


class _Page(HTMLParser):
    """The elements of a page, their attributes, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_report_has_no_element_but_its_own_and_its_figures_are_drawn(folder: Path) -> None:
    text = (folder / "report" / "report.html").read_text()
    assert not ODD.search(text)
    page = _Page()
    page.feed(text)
    figures = list((folder / "report" / "figures").glob("*.png"))
    assert page.tags["img"] == len(figures) > 0
    assert not {"script", "iframe", "form", "object"} & page.tags.keys()
    assert page.tags["b"] == page.tags["figure"]
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert "[bold red]x[/] :fire: <script>pwned()</script>" in page.text
