"""What an endpoint may cost, and how often it is asked: of all shards together."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from endpoint_server import Reply, Server, completion, ended, run

from workers.judges.backends import endpoint

pytestmark = pytest.mark.train


def test_max_cost_ends_the_step_and_raising_it_goes_on_where_it_ended(server: Server, pairs: Path) -> None:
    # A judgment costs 20 tokens x $500 per million = $0.01.
    backend, one_by_one = {"price_out": 500.0}, {"parallel": 1}
    with pytest.raises(ValueError, match=r"max_cost of \$0.025 reached: \$0.0300 spent.*not be paid for again"):
        run(server, pairs, backend=backend, access=one_by_one | {"max_cost": 0.025})
    assert len(server.seen) == 3
    with pytest.raises(ValueError, match=r"\$0.0300 spent"):
        run(server, pairs, backend=backend, access=one_by_one | {"max_cost": 0.025})
    assert len(server.seen) == 3
    _, metrics = run(server, pairs, backend=backend, access=one_by_one | {"max_cost": 0.1})
    assert len(server.seen) == 6
    assert metrics["judge_cost"] == pytest.approx(0.06)


def run_shard(server: Server, pairs: Path, shard: int, **settings: Any) -> dict[str, float]:
    """One of three shards, a pair with two judgments each, which writes into a folder of its own."""
    folder = pairs / f"shard-{shard}"
    folder.mkdir(exist_ok=True)
    shutil.copy(pairs / "preferences.parquet", folder)
    return run(server, folder, shards=3, shard=shard, **settings)[1]


def test_max_cost_is_that_of_all_shards_and_what_is_kept_is_not_spent_again(
    server: Server, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, access = {"price_out": 500.0}, {"parallel": 1, "max_cost": 0.035}  # $0.01 a judgment
    for _ in range(2):
        for shard in (0, 1):
            assert run_shard(server, pairs, shard, backend=backend, access=access)["judge_cost"] == pytest.approx(0.02)
        assert len(server.seen) == 4
        with pytest.raises(ValueError, match=r"max_cost of \$0.035 reached: \$0.0400 spent by all .*study/judge"):
            run_shard(server, pairs, 2, backend=backend, access=access)
        assert len(server.seen) == 4
    # Another sweep that asks the same has the same answers, at the same cost, whoever paid.
    monkeypatch.setenv("SWEEP_ACCOUNT", "another/judge")
    run_shard(server, pairs, 0, backend=backend, access=access | {"max_cost": 0.02})
    with pytest.raises(ValueError, match=r"\$0.0200 spent by all steps of another/judge"):
        run_shard(server, pairs, 2, backend=backend, access=access | {"max_cost": 0.02})
    run_shard(server, pairs, 2, backend=backend, access=access)
    assert len(server.seen) == 6


def test_shards_that_run_at_once_pass_max_cost_by_what_is_under_way_at_most(server: Server, pairs: Path) -> None:
    def reply(number: int, body: dict[str, Any]) -> Reply:
        time.sleep(0.02)
        return 200, {}, completion("x")

    server.reply = reply
    settings = {"backend": {"price_out": 500.0}, "access": {"parallel": 2, "max_cost": 0.055}}
    with ThreadPoolExecutor(3) as pool:
        shards = [pool.submit(run_shard, server, pairs, i, samples=20, **settings) for i in range(3)]
    assert all("max_cost of $0.055 reached" in str(shard.exception()) for shard in shards)
    assert 6 <= len(server.seen) <= 5 + 3 * 2


def test_requests_per_minute_are_those_of_all_shards(server: Server, pairs: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        for shard in range(3):
            pool.submit(run_shard, server, pairs, shard, access={"requests_per_minute": 600})
    assert len(server.times) == 6
    assert max(server.times) - min(server.times) > 0.4  # six, a tenth of a second apart: never faster than allowed


def test_refusals_and_garbled_replies_cost_what_the_server_says(
    server: Server, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "LONGEST_PAUSE", 0.0)
    # One answer after a garbled reply, one garbled four times, one that a filter ended: 2 + 4 + 1 times 20 tokens.
    answers = [completion(None), completion("x"), *[completion(None)] * 4, ended("", "content_filter")]
    server.reply = lambda number, body: (200, {}, answers[number])
    rows, metrics = run(server, pairs, samples=1, backend={"price_out": 500.0}, access={"parallel": 1})
    assert [row["unread"][:8] for row in rows] == ["", "garbled:", "filtered"]
    assert metrics["judge_cost"] == pytest.approx(7 * 20 * 500 / 1e6)


def test_requests_are_spread_over_the_minute_and_few_are_under_way_at_once(server: Server, pairs: Path) -> None:
    def reply(number: int, body: dict[str, Any]) -> Reply:
        time.sleep(0.05)
        return 200, {}, completion("x")

    server.reply = reply
    run(server, pairs, access={"parallel": 2})
    assert server.most_under_way == 2
    server.times.clear()
    run(server, pairs, seed=1, access={"requests_per_minute": 600})
    assert server.times[-1] - server.times[0] > 0.4  # six, a tenth of a second apart: never faster than allowed
