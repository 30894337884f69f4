"""The live page in a real browser while a sweep runs: it moves by itself, opens a cell, and asks nobody else."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import toy
import toy_sweep
from servers import free_port, wait_until_it_answers

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HTML = "<img src=x onerror=window.pwned=1>"
#: The last step of each cell takes a second; those of one kind fail with a message full of markup.
SWEEP = (
    toy_sweep.SWEEP.replace(
        "plain: {behaviour: work}", f"plain: {{behaviour: slow}}\n    '{HTML}': {{behaviour: markup}}"
    )
    .replace("x: [1, 2, 3]", "x: [1, 2, 3, 4, 5, 6, 7, 8]")
    .replace("Does adding work?", "Does '<b>adding</b>' *work*?")
)
#: One more step, which all cells share, leaves the markup in a text, a table and a curve.
SWEEP = SWEEP.replace("results:", "  note: {stage: note}\nresults:").replace("uses: [toy]", "uses: [toy, notes]")
NOTES = """\
import pyarrow as pa, pyarrow.parquet as pq, toy
from workers.config import Config
from workers.stage import Stage
from workers.tables import HISTORY

class NoteConfig(Config):
    text: str = toy.MARKUP

def note(config, out):
    HISTORY.write({"step": [1, 2], "metric": [config.text] * 2, "value": [2.0, 1.0]}, out)
    (out / "a.txt").write_text(f"text {config.text}")
    pq.write_table(pa.table({config.text: [f"row {config.text}"]}), out / "b.parquet")
    return {}

STAGES = {"note": Stage("notes:note", 1, NoteConfig, "note")}
"""
COMMAND = "import sys, toy; sys.argv[0] = 'sweep'; from orchestrator.cli import main; main()"


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    tests = Path(toy.__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])}
    with (folder / f"{arguments[0]}.log").open("wb") as said:
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments], cwd=folder, env=environment, stdout=said, stderr=said
        )


@pytest.fixture
def address(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The page of a sweep that nobody runs yet."""
    toy_sweep.write_sweep(tmp_path, SWEEP)
    (tmp_path / "notes.py").write_text(NOTES)
    port = free_port()
    server = start(tmp_path, "dashboard", "toy.yaml", "--outputs", "out", "--port", str(port), "--no-browser")
    try:
        wait_until_it_answers(f"http://127.0.0.1:{port}/_stcore/health", server, log=tmp_path / "dashboard.log")
        yield f"http://127.0.0.1:{port}", server
    finally:
        server.kill()
        server.wait()


def test_the_page_follows_a_running_sweep_and_opens_a_cell(
    address: tuple[str, subprocess.Popen[bytes]], chromium: Browser, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    url, server = address
    page = chromium.new_page(viewport={"width": 1440, "height": 1700})
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url))
    page.on("websocket", lambda socket: asked.add(socket.url))
    expect.set_options(timeout=120_000)
    page.goto(f"{url}/?x=x&y=kind")
    expect(page.get_by_text("has not been run here yet")).to_be_visible()
    assert page.title() == "toy"

    driver = start(tmp_path, "run", "toy.yaml", "--outputs", "out", "--inline")
    # Nobody reloads the page.
    finished = page.get_by_text(re.compile(r"\d+ of 32 cells finished"))
    expect(page.get_by_text(re.compile(r"updated \d+ s ago"))).to_be_visible()
    first = finished.inner_text()
    expect(finished).not_to_have_text(first)
    expect(page.get_by_text(re.compile("16 of 32 cells finished.*no driver is running"))).to_be_visible()
    assert driver.wait(120) == 1

    # The message is there as it was written, and none of it was run.
    page.get_by_text("16 cells failed").click()
    expect(page.locator("pre", has_text=toy.MARKUP)).to_be_visible()
    expect(page.get_by_text("Does '<b>adding</b>' *work*?")).to_be_visible()
    # A click on a square lists its cells, one on a row opens its cell.
    box = page.get_by_test_id("stVegaLiteChart").bounding_box()
    assert box
    page.mouse.move(box["x"] + 0.96 * box["width"], box["y"] + 0.75 * box["height"])
    page.mouse.click(box["x"] + 0.96 * box["width"], box["y"] + 0.75 * box["height"])
    expect(page.get_by_role("heading", name=f"2 cells: x = 8, kind = {HTML}")).to_be_visible()
    table = page.get_by_test_id("stDataFrame").last.bounding_box()
    assert table
    page.mouse.click(table["x"] + 20, table["y"] + 54)
    expect(page.get_by_role("heading", name="Coordinates")).to_be_visible()
    expect(page.locator("div.log")).to_contain_text(toy.MARKUP)
    assert re.search(r"[?&]cell=[0-9a-f]{12}", page.url)
    # What the cell made is read when somebody asks for it, and stays text, too.
    expect(page.get_by_text("Read it from the store")).to_be_visible()
    assert not page.get_by_text("a.txt").count()
    page.get_by_text("Read it from the store").click()
    expect(page.locator("pre", has_text=f"text {toy.MARKUP}")).to_be_visible()
    expect(page.locator("table.texts th", has_text=toy.MARKUP)).to_be_visible()
    expect(page.locator("table.texts td", has_text=f"row {toy.MARKUP}")).to_be_visible()
    expect(page.get_by_test_id("stVegaLiteChart")).to_be_visible()
    assert page.evaluate("window.pwned") is None
    page.close()
    outside = {each for each in asked if not re.match(r"(data|blob):|(http|ws)://127\.0\.0\.1:", each)}
    assert not outside

    server.send_signal(signal.SIGINT)
    assert server.wait(60) in (0, 130)
    assert "Traceback" not in (tmp_path / "dashboard.log").read_text()


def test_a_port_that_is_taken_is_said_so_and_the_default_gives_way(tmp_path: Path) -> None:
    import socket

    from dashboards.live.server import DEFAULT_PORT, choose_port
    from orchestrator.sweep.problems import SweepError

    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(SweepError, match="already in use; choose another --port"):
            choose_port("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(SweepError, match="choose another --port or --host"):
            choose_port("192.0.2.1", None)
    free = choose_port("127.0.0.1", None)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if free == DEFAULT_PORT:
            other.bind(("127.0.0.1", free))
            other.listen()
            assert choose_port("127.0.0.1", None) != free
