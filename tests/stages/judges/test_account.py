"""What processes have paid adds up once, whatever becomes of them; and turns are nobody's twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from workers.judges.backends.account import Account
from workers.judges.backends.turns import Turns


def test_payments_of_all_add_up_and_one_that_several_note_counts_once(tmp_path: Path) -> None:
    one, other = Account(tmp_path / "a"), Account(tmp_path / "a")
    assert one.total() == 0
    one.note({"x": 0.25, "y": 0.5})
    assert other.total() == 0.75
    other.note({"y": 0.5, "z": 1.0})
    one.note({"x": 0.25})
    assert one.total() == other.total() == 1.75
    assert Account(tmp_path / "a").total() == 1.75
    assert Account(tmp_path / "b").total() == 0


def test_a_process_that_dies_while_it_writes_takes_no_payment_of_others_along(tmp_path: Path) -> None:
    account = Account(tmp_path)
    account.note({"x": 0.25})
    (tmp_path / "dead-1-00").write_bytes(b"y 0.5\n\xff garbage\nz 1")
    assert account.total() == 0.75
    with (tmp_path / "dead-1-00").open("ab") as file:  # it was not dead
        file.write(b".0\n")
    assert account.total() == 1.75


PROCESS = """
import sys
from pathlib import Path
from workers.judges.backends.account import Account
from workers.judges.backends.turns import Turns
folder, number = Path(sys.argv[1]), sys.argv[2]
account, turns = Account(folder / "account"), Turns(folder / "turns", 1000.0)
for i in range(50):
    account.note({f"{number}-{i}": 0.25, f"shared-{i}": 0.5})
    turns.take()
"""


def test_processes_that_run_at_once_lose_neither_payments_nor_turns(tmp_path: Path) -> None:
    turns = Turns(tmp_path / "turns", 1000.0)
    turns.take()
    first = float((tmp_path / "turns").read_text())
    command = [sys.executable, "-c", PROCESS, str(tmp_path)]
    processes = [subprocess.Popen([*command, str(number)]) for number in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert Account(tmp_path / "account").total() == 3 * 50 * 0.25 + 50 * 0.5
    assert float((tmp_path / "turns").read_text()) == pytest.approx(first + 150 * 1000)


def test_turns_come_one_interval_after_the_other_and_a_clock_that_was_set_back_stops_nobody(tmp_path: Path) -> None:
    turns = Turns(tmp_path / "deep" / "turns", 1000.0)
    assert turns.take() == 0
    assert 0 < turns.take() <= 1000
    assert 1000 < Turns(tmp_path / "deep" / "turns", 1.0).take() <= 2000
    for text in ("", "what?", "nan", "9e99"):
        (tmp_path / "deep" / "turns").write_text(text)
        assert turns.take() == 0
    (tmp_path / "deep" / "turns").write_text("5.0")  # long ago
    assert turns.take() == 0
