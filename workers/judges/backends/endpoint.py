"""Judgments by an OpenAI-compatible server.

Answers cost money, so each one is stored as soon as it arrives, in a folder that outlives the step: a step that fails
half-way, is killed, or runs again requests only the answers that are missing. The folder is `$SWEEP_ANSWERS`
(`workers.judges.backends.answers`); name one that all nodes share where a step may be tried again on another node.

Steps that share the folder keep limits together. `max_cost` is that of `$SWEEP_ACCOUNT`, which the orchestrator sets to
sweep and entry, so it is shared by all shards and variants of the entry: it limits the cost of all answers that they
use, whenever these were paid for, and an answer that several use counts once. Requests in flight when it is reached are
still paid for: `parallel` of each running step (and on NFS those of other machines in the last minute; see
`workers.judges.backends.account`). `requests_per_minute` is shared by all steps with the same endpoint, model and key
(`workers.judges.backends.turns`).

A request without an answer is treated by its cause:

- a full or broken server, or none (429, 5xx, no connection): sent again, `TRIES` times in all; then the step fails;
- a garbled reply (no JSON, no choices, no message): sent again, `GARBLED_TRIES` times in all; then an unread judgment;
- the request is too long for the model, or refused for another reason (400, 413, 422): an unread judgment at once;
- the content is refused (a content filter, a refusal of the model): likewise, and the refusal is stored as an
  answer, since it is paid for. The others are sent again when the step runs again;
- a wrong configuration fails the step: a key or model that the server does not accept (401, 402, 403, 404 …), a
  parameter that it rejects before it has answered anything, and any fault of `ALIKE` different requests in a row
  without an answer in between, or of all requests of a step.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from workers.data.chat import messages
from workers.judges.backends.account import Account
from workers.judges.backends.answers import Answer, answer_file, answers_folder, read_answer, write_answer
from workers.judges.backends.configs import EndpointJudge
from workers.judges.backends.replies import Fault, Text, Usage, read_error, read_reply, writable
from workers.judges.backends.turns import Turns
from workers.judges.requests import FILTERED, GARBLED, REFUSED, TOO_LONG
from workers.progress import Progress
from workers.redaction import Redaction
from workers.seeding import derive_seed

#: Times that a request is sent to a full or broken server before the step fails.
TRIES = 8
#: Times that a request is sent whose replies are garbled: they may have been paid for.
GARBLED_TRIES = 4
#: Number of different requests in a row that fail alike, at which the configuration is blamed and not the requests.
ALIKE = 20
#: Longest pause between two tries, in seconds; the first is half a second, and each is twice the one before.
LONGEST_PAUSE = 60.0


@dataclass(frozen=True)
class Question:
    """One request to the server: everything that its answer depends on, except endpoint and model."""

    dialogue: str
    label: str
    """Name that distinguishes samples of the same dialogue; with the seed of the step, it gives the server's seed."""
    seed: int
    temperature: float
    top_p: float
    repetition_penalty: float
    max_new_tokens: int


def cost(backend: EndpointJudge, answer: Answer) -> float:
    """Compute the dollars that an answer costs; one without a text costs what the server reports, else nothing.

    Raises:
        ValueError: the server does not report how many tokens it used for a text.
    """
    if not answer.unread and (answer.prompt_tokens is None or answer.answer_tokens is None):
        raise ValueError(f"{backend.endpoint}: the server does not report the tokens that it used (`usage`)")
    return ((answer.prompt_tokens or 0) * backend.price_in + (answer.answer_tokens or 0) * backend.price_out) / 1e6


def ask(backend: EndpointJudge, questions: Sequence[Question]) -> list[Answer]:
    """Get the answer to each question, from the stored answers or from the server.

    Requests that meet a full server (429), a broken one (5xx) or none are sent again, `TRIES` times in all, with
    growing pauses or those that the server requests (`Retry-After`). At most `access.parallel` are in flight, and at
    most `access.requests_per_minute` are sent, those included.

    Raises:
        ValueError: the key is not set or refused, the configuration is wrong, tokens are not reported, or
            `access.max_cost` is reached.
        ConnectionError: the server did not answer in `TRIES` tries, or has stopped giving answers.
    """
    server = _Server(backend)
    paths = [server.path(question) for question in questions]
    answers = [read_answer(path) for path in paths]
    server.pay({_payment(path): cost(backend, answer) for path, answer in zip(paths, answers, strict=True) if answer})
    server.answered = sum(not answer.unread for answer in answers if answer)
    missing = [i for i, answer in enumerate(answers) if answer is None]
    if len(missing) < len(answers):
        print(f"{len(answers) - len(missing)} of {len(answers)} answers were kept from before", flush=True)
    with ThreadPoolExecutor(backend.access.parallel) as pool:
        futures = {pool.submit(server.ask, questions[i], paths[i]): i for i in missing}
        progress = Progress("judgments", len(futures))
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                answers[futures[future]] = future.result()
                progress.show(done)
        except BaseException:
            server.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    found = [answer for answer in answers if answer]
    failed = [answer for answer in found if answer.unread.startswith((REFUSED, GARBLED))]
    if failed and not server.answered:
        raise ValueError(server.nothing_answered(len(failed), failed[0].unread))
    return found


class _Server:
    """A server for several threads, with the cost of its answers and their number."""

    def __init__(self, backend: EndpointJudge) -> None:
        import openai

        self.backend = backend
        key = _key(backend.access.key_env)
        self.redaction = Redaction(key)
        self.client = openai.OpenAI(
            api_key=key or "none", base_url=backend.endpoint, timeout=backend.access.timeout, max_retries=0
        )
        self.folder = answers_folder()
        self.payer = os.environ.get("SWEEP_ACCOUNT") or f"{backend.model} at {backend.endpoint}"
        self.account = Account(self.folder / "accounts" / quote(self.payer, safe=""))
        self.turns = _turns(backend, self.folder)
        self.answered = 0
        #: Kind of fault -> the dialogues that met it since the last answer.
        self.faults: dict[str, set[str]] = {}
        self.lock = threading.Lock()
        self.stopped = threading.Event()

    def path(self, question: Question) -> Path:
        """Return the file of the answer."""
        return answer_file(self.folder, [self.backend.endpoint, self._parameters(question), question.label])

    def ask(self, question: Question, path: Path) -> Answer | None:
        """Get the answer of the server, and store it; None if another request has failed meanwhile."""
        try:
            with self.lock:
                self._require_money()
            answer = self._answer(question)
            if answer is not None:
                payment = _payment(path)
                if not answer.unread or answer.unread.startswith(FILTERED):
                    write_answer(path, answer)
                else:  # requested again, it is paid for again
                    payment += f"+{secrets.token_hex(4)}"
                self.pay({payment: cost(self.backend, answer)})
        except BaseException:
            self.stopped.set()
            raise
        return answer

    def pay(self, payments: Mapping[str, float]) -> None:
        """Note the cost of answers in the account, in dollars."""
        with self.lock:
            self.account.note({name: dollars for name, dollars in payments.items() if dollars})

    def nothing_answered(self, requests: int, reply: str) -> str:
        """Return the message of the error where only the configuration explains that so many requests failed."""
        return (
            f"{self.backend.endpoint}: not one of {requests} requests was answered; the last reply: {reply}. "
            "A wrong configuration looks like that: check endpoint, model, and what the server is told (max_new_tokens,"
            " repetition_penalty: 1 for a server that does not know it)"
        )

    def _parameters(self, question: Question) -> dict[str, Any]:
        """Return the arguments of the client's `create`."""
        parameters: dict[str, Any] = {
            "model": self.backend.model,
            "messages": messages(question.dialogue),
            "temperature": question.temperature,
            "top_p": question.top_p,
            self.backend.limit_name: question.max_new_tokens,
            "seed": derive_seed(question.seed, question.label, bits=31),
        }
        if question.repetition_penalty != 1:
            parameters["extra_body"] = {"repetition_penalty": question.repetition_penalty}
        return parameters

    def _require_money(self) -> None:
        cap = self.backend.access.max_cost
        if cap is not None and (spent := self.account.total()) >= cap:
            raise ValueError(
                f"{self.backend.endpoint}: max_cost of ${cap:g} reached: ${spent:.4f} spent by all steps of "
                f"{self.payer} together. The answers are kept in {self.folder} and will not be paid for again: raise "
                "access.max_cost and run the same command"
            )

    def _answer(self, question: Question) -> Answer | None:
        """Send a request until it is answered, or cannot be; None if another one has ended the step."""
        parameters = self._parameters(question)
        used = Usage()
        shown, garbled = "", 0
        for tried in range(TRIES):
            self._wait_for_turn()
            if self.stopped.is_set():
                return None
            reply = self._send(parameters)
            used = used.plus(reply.usage)
            if isinstance(reply, Text):
                self._note_answer()
                return Answer(reply.text, used.prompt, used.answer)
            shown = self._redacted(reply.message)
            if reply.kind == "configuration" or (reply.blames and not self.answered):
                raise ValueError(f"{self.backend.endpoint}: {self._misconfigured(reply, shown)}")
            garbled += reply.kind == "garbled"
            if reply.kind not in ("busy", "garbled") or garbled == GARBLED_TRIES:
                self._note_fault(reply.kind, question.dialogue, shown)
                return Answer("", used.prompt, used.answer, f"{reply.kind}: {shown}")
            print(f"{self.backend.endpoint}: try {tried + 1} of {TRIES}: {shown}", flush=True)
            if tried + 1 < TRIES:
                self.stopped.wait(_pause(reply, tried))
        raise ConnectionError(
            f"{self.backend.endpoint}: no answer in {TRIES} tries: {shown}. Answers that came are kept in {self.folder}"
        )

    def _send(self, parameters: dict[str, Any]) -> Text | Fault:
        import openai

        try:
            reply = self.client.chat.completions.with_raw_response.create(**parameters)
        except openai.APIStatusError as error:
            return read_error(error.status_code, error.body, error.response.text, error.response.headers)
        except openai.APIConnectionError as error:
            return Fault("busy", str(error))
        return read_reply(reply.http_response.text, reply.headers)

    def _note_answer(self) -> None:
        """Note that a request was answered: the configuration cannot be wrong."""
        with self.lock:
            self.answered += 1
            self.faults.clear()

    def _note_fault(self, kind: str, dialogue: str, shown: str) -> None:
        """Note a request that cannot be answered.

        Raises:
            ValueError: `ALIKE` different ones in a row met this kind: it is the configuration's fault.
            ConnectionError: replies are garbled, but were not before: that may pass.
        """
        with self.lock:
            # A refused content, or a length where others were answered, is the fault of that request alone.
            if kind == FILTERED or (kind == TOO_LONG and self.answered):
                return
            alike = self.faults.setdefault(kind, set())
            alike.add(dialogue)
            answered, requests = self.answered, len(alike)
        if requests >= ALIKE:
            message = self.nothing_answered(requests, f"{kind}: {shown}")
            raise ConnectionError(message) if kind == GARBLED and answered else ValueError(message)

    def _misconfigured(self, fault: Fault, shown: str) -> str:
        """Return the message of the error where no request can be answered."""
        if fault.status in (401, 403):
            return f"the server refuses the key in ${self.backend.access.key_env} (HTTP {fault.status})"
        hint = "; if it does not know repetition_penalty, set it to 1" if fault.blames == "repetition_penalty" else ""
        return f"request refused: {shown}{hint}"

    def _wait_for_turn(self) -> None:
        if self.turns is not None:
            self.stopped.wait(self.turns.take())

    def _redacted(self, message: str) -> str:
        """Hide the key in the server's words, then cut them: a key that is cut first is not found any more."""
        return " ".join(self.redaction.hide(writable(message)).split())[:500]


def _turns(backend: EndpointJudge, folder: Path) -> Turns | None:
    if backend.access.requests_per_minute is None:
        return None
    # As the server counts: by model and by the owner of the key.
    asked = json.dumps([backend.endpoint, backend.model, backend.access.key_env])
    path = folder / "turns" / hashlib.sha256(asked.encode()).hexdigest()[:32]
    return Turns(path, 60 / backend.access.requests_per_minute)


def _payment(path: Path) -> str:
    """Return the name of the payment for the answer in `path`."""
    return path.stem[:16]


def _key(variable: str | None) -> str | None:
    """Read the key of the server from an environment variable."""
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(
            f"the environment variable {variable} is not set on this worker: export it before Ray starts there, or set "
            "access.key_env: null for a server that wants no key"
        )
    if not (key.isascii() and key.isprintable()):
        # Libraries quote what they cannot send.
        raise ValueError(
            f"the environment variable {variable} holds characters that no key has (a line break, or not ASCII):"
            " export the key alone, in one line"
        )
    return key


def _pause(fault: Fault, tried: int) -> float:
    """Compute the seconds to wait after a failed try: those that the server requests, else doubling from 0.5."""
    if fault.retry_after is not None and fault.retry_after.replace(".", "", 1).isdecimal():
        return min(float(fault.retry_after), LONGEST_PAUSE)
    return min(0.5 * 2.0**tried, LONGEST_PAUSE)
