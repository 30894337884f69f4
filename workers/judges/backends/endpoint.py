"""Judgments by an OpenAI-compatible server.

Answers cost money, so each one is kept as soon as it is there, in a folder that outlives the step: a step that fails
half-way, is killed, or runs again asks only for what it does not have yet. The folder is `$SWEEP_ANSWERS`, else
`answers` in `$SWEEP_CACHE` or the user's cache folder; name one that all nodes share where a step may be tried again on
another node. A file holds one answer and its use of tokens, under the digest of all that the server was told. There is
no key in it.

Steps that share the folder keep limits together. `max_cost` is that of `$SWEEP_ACCOUNT`, which the orchestrator sets to
sweep and entry, so all shards and variants of the entry: what the answers that they use have cost, whenever that was,
an answer that several use once. Requests that are under way when it is reached are still paid for: `parallel` of each
step that runs (and on NFS what other machines paid for in the last minute; see `workers.judges.backends.account`).
`requests_per_minute` is that of endpoint, model and key, whoever asks (`workers.judges.backends.turns`).

What becomes of a request that has no answer:

- a full or broken server, or none (429, 5xx, no connection): asked again, `TRIES` times in all; then the step ends;
- a garbled reply (no JSON, no choices, no message): asked again, `GARBLED_TRIES` times in all; then an unread judgment;
- the request is too long for the model, or refused for another reason (400, 413, 422): an unread judgment at once;
- the content is refused (a content filter, a refusal of the model): likewise, and it is kept as an answer, because
  that is what it is: asking again would be paid for again. The others are asked again when the step runs again;
- a wrong configuration ends the step: a key or model that the server does not accept (401, 402, 403, 404 …), a
  parameter that it complains of before it has answered anything, and whatever befalls `ALIKE` different requests in a
  row without an answer in between, or all requests of a step.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from workers.data.chat import messages
from workers.judges.backends.account import Account
from workers.judges.backends.configs import EndpointJudge
from workers.judges.backends.redaction import Redaction
from workers.judges.backends.turns import Turns
from workers.judges.requests import TOO_LONG
from workers.progress import Progress
from workers.seeding import derive_seed

#: Times that a request is sent to a full or broken server before the step fails.
TRIES = 8
#: Times that a request is sent whose replies are garbled: they may have been paid for.
GARBLED_TRIES = 4
#: Different requests in a row that fail alike, after which it is the configuration's fault and not theirs.
ALIKE = 20
#: Longest pause between two tries, in seconds; the first is half a second, and each is twice the one before.
LONGEST_PAUSE = 60.0

#: How the reason of an unread judgment begins; a too long one begins with `TOO_LONG`.
REFUSED, FILTERED, GARBLED = "refused", "filtered", "garbled"

#: Statuses that speak of the key, the account or the address, never of a single request.
_CONFIGURATION = (401, 402, 403, 404, 405, 407, 410)
#: Statuses of a server that is busy, beside all from 500.
_BUSY = (408, 409, 425, 429)

_CODE_OF_CONTENT = re.compile(r"content|moderat|safety|inspection|sensitive|policy|invalid_prompt", re.IGNORECASE)
_WORDS_OF_CONTENT = re.compile(r"content (management )?policy|usage policy|content.?filter|was flagged", re.IGNORECASE)
_WORDS_OF_LENGTH = re.compile(
    r"context_?\s?(length|window|size)|prompt is too long|reduce the length|too many (input )?tokens", re.IGNORECASE
)

_HALF = re.compile(r"[\ud800-\udfff]")
#: What a request says beside model, messages and seed, words that errors use for other things too.
_PARAMETERS = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "repetition_penalty")


@dataclass(frozen=True)
class Question:
    """One request to the server: all that its answer depends on."""

    dialogue: str
    label: str
    """Tells samples of the same dialogue apart; with the seed of the step, the seed that the server is told."""
    seed: int
    temperature: float
    top_p: float
    repetition_penalty: float
    max_new_tokens: int


@dataclass(frozen=True)
class Answer:
    """What the server wrote, and the tokens that it bills for, None where it does not say."""

    text: str
    prompt_tokens: int | None
    """Those of garbled replies to the same question included; so are the next."""
    answer_tokens: int | None
    unread: str = ""
    """Why there is no text: one of the words above, a colon, and what the server says; "" where there is a text."""


#: Tokens of prompts and of replies, None where the server does not say.
Usage = tuple[int | None, int | None]
Kind = Literal["busy", "configuration", "too long", "filtered", "refused", "garbled"]


@dataclass(frozen=True)
class _Text:
    """A reply that is an answer."""

    text: str
    usage: Usage


@dataclass(frozen=True)
class _Fault:
    """A reply that is no answer, or that there was none."""

    kind: Kind
    words: str
    """The server's, secrets included."""
    status: int = 200
    blames: str = ""
    """The parameter that the server complains of."""
    asked: str | None = None
    """`Retry-After`."""
    usage: Usage = (None, None)
    """Billed for nonetheless."""


def answers_folder() -> Path:
    """`$SWEEP_ANSWERS`, else `answers` in the cache folder; it need not exist."""
    if chosen := os.environ.get("SWEEP_ANSWERS"):
        return Path(chosen).expanduser()
    if cache := os.environ.get("SWEEP_CACHE"):
        return Path(cache).expanduser() / "answers"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alignment-sweeps" / "answers"


def cost(backend: EndpointJudge, answer: Answer) -> float:
    """Dollars that an answer costs; a refused or garbled one costs what the server says, nothing if it says nothing.

    Raises:
        ValueError: the server does not say how many tokens it used for a text.
    """
    if not answer.unread and (answer.prompt_tokens is None or answer.answer_tokens is None):
        raise ValueError(f"{backend.endpoint}: the server does not report the tokens that it used (`usage`)")
    return ((answer.prompt_tokens or 0) * backend.price_in + (answer.answer_tokens or 0) * backend.price_out) / 1e6


def ask(backend: EndpointJudge, questions: Sequence[Question]) -> list[Answer]:
    """The answer to each question, from the kept ones or from the server; unread ones say why.

    Requests that meet a full server (429), a broken one (5xx) or none are sent again, `TRIES` times in all, with
    growing pauses or those that the server asks for (`Retry-After`). At most `parallel` are under way, and at most
    `requests_per_minute` are sent, those included.

    Raises:
        ValueError: the key is not set or refused, the configuration is wrong, tokens are not reported, or `max_cost`
            is reached.
        ConnectionError: the server did not answer in `TRIES` tries, or has stopped to give answers.
    """
    server = _Server(backend)
    paths = [server.path(question) for question in questions]
    answers = [_read(path) for path in paths]
    server.pay({_name(path): cost(backend, answer) for path, answer in zip(paths, answers, strict=True) if answer})
    server.answered = sum(not answer.unread for answer in answers if answer)
    open_ones = [i for i, answer in enumerate(answers) if answer is None]
    if len(open_ones) < len(answers):
        print(f"{len(answers) - len(open_ones)} of {len(answers)} answers were kept from before", flush=True)
    with ThreadPoolExecutor(backend.access.parallel) as pool:
        futures = {pool.submit(server.ask, questions[i], paths[i]): i for i in open_ones}
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
    doubtful = [answer for answer in found if answer.unread.startswith((REFUSED, GARBLED))]
    if doubtful and not server.answered:
        raise ValueError(server.doubted(len(doubtful), doubtful[0].unread))
    return found


class _Server:
    """A server that is being asked: what it has cost so far, and whether it has answered."""

    def __init__(self, backend: EndpointJudge) -> None:
        import openai

        self.backend = backend
        key = _key(backend)
        self.secret = Redaction(key)
        self.client = openai.OpenAI(
            api_key=key or "none", base_url=backend.endpoint, timeout=backend.access.timeout, max_retries=0
        )
        self.folder = answers_folder()
        self.account = Account(self.folder / "accounts" / quote(_account(backend), safe=""))
        self.turns = _turns(backend, self.folder)
        self.answered = 0
        #: Kind of fault -> the dialogues that met it since the last answer.
        self.doubts: dict[str, set[str]] = {}
        self.lock = threading.Lock()
        self.stopped = threading.Event()

    def path(self, question: Question) -> Path:
        """Where the answer is kept."""
        identity = json.dumps([self.backend.endpoint, self._told(question), question.label], sort_keys=True)
        digest = hashlib.sha256(identity.encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest}.json"

    def ask(self, question: Question, path: Path) -> Answer | None:
        """Ask the server, and keep what it says; None if another request has failed meanwhile."""
        try:
            with self.lock:
                self._under_the_cap()
            answer = self._from_server(question)
            if answer is not None:
                name = _name(path)
                if not answer.unread or answer.unread.startswith(FILTERED):
                    _write(path, answer)
                else:  # asked again, it is paid for again
                    name += f"+{secrets.token_hex(4)}"
                self.pay({name: cost(self.backend, answer)})
        except BaseException:
            self.stopped.set()
            raise
        return answer

    def pay(self, payments: Mapping[str, float]) -> None:
        """Note in the account what answers cost."""
        with self.lock:
            self.account.note({name: dollars for name, dollars in payments.items() if dollars})

    def doubted(self, requests: int, said: str) -> str:
        """What to say of requests that nothing but the configuration explains the failure of."""
        return (
            f"{self.backend.endpoint}: not one of {requests} requests was answered; the last reply: {said}. "
            "A wrong configuration looks like that: check endpoint, model, and what the server is told (max_new_tokens,"
            " repetition_penalty: 1 for a server that does not know it)"
        )

    def _told(self, question: Question) -> dict[str, Any]:
        told: dict[str, Any] = {
            "model": self.backend.model,
            "messages": messages(question.dialogue),
            "temperature": question.temperature,
            "top_p": question.top_p,
            self.backend.limit_name: question.max_new_tokens,
            "seed": derive_seed(question.seed, question.label, bits=31),
        }
        if question.repetition_penalty != 1:
            told["extra_body"] = {"repetition_penalty": question.repetition_penalty}
        return told

    def _under_the_cap(self) -> None:
        cap = self.backend.access.max_cost
        if cap is not None and (spent := self.account.total()) >= cap:
            raise ValueError(
                f"{self.backend.endpoint}: max_cost of ${cap:g} reached: ${spent:.4f} spent by all steps of "
                f"{_account(self.backend)} together. The answers are kept in {self.folder} and will not be paid for "
                "again: raise access.max_cost and run the same command"
            )

    def _from_server(self, question: Question) -> Answer | None:
        told = self._told(question)
        used: Usage = (None, None)
        said, garbled = "", 0
        for tried in range(TRIES):
            self._wait_for_turn()
            if self.stopped.is_set():
                return None
            found = self._send(told)
            used = _added(used, found.usage)
            if isinstance(found, _Text):
                self._trusted()
                return Answer(found.text, *used)
            said = self._shown(found.words)
            if found.kind == "configuration" or (found.blames and not self.answered):
                raise ValueError(f"{self.backend.endpoint}: {self._refusal(found, said)}")
            garbled += found.kind == "garbled"
            if found.kind not in ("busy", "garbled") or garbled == GARBLED_TRIES:
                self._doubt(found.kind, question.dialogue, said)
                return Answer("", *used, f"{found.kind}: {said}")
            print(f"{self.backend.endpoint}: try {tried + 1} of {TRIES}: {said}", flush=True)
            if tried + 1 < TRIES:
                self.stopped.wait(_pause(found, tried))
        raise ConnectionError(
            f"{self.backend.endpoint}: no answer in {TRIES} tries: {said}. Answers that came are kept in {self.folder}"
        )

    def _send(self, told: dict[str, Any]) -> _Text | _Fault:
        import openai

        try:
            reply = self.client.chat.completions.with_raw_response.create(**told)
        except openai.APIStatusError as error:
            return _status_fault(error.status_code, error.body, error.response.text, error.response.headers)
        except openai.APIConnectionError as error:
            return _Fault("busy", str(error))
        return _read_reply(reply.http_response.text, reply.headers)

    def _trusted(self) -> None:
        """The server has answered a request: what it is told cannot be wrong."""
        with self.lock:
            self.answered += 1
            self.doubts.clear()

    def _doubt(self, kind: str, dialogue: str, said: str) -> None:
        """Note a request that cannot be answered; an error where it cannot be the fault of so many requests."""
        with self.lock:
            # What it says of a content, or of a length where it has answered others, is about that request alone.
            if kind == FILTERED or (kind == TOO_LONG and self.answered):
                return
            alike = self.doubts.setdefault(kind, set())
            alike.add(dialogue)
            answered, requests = self.answered, len(alike)
        if requests >= ALIKE:
            message = self.doubted(requests, f"{kind}: {said}")
            raise ConnectionError(message) if kind == GARBLED and answered else ValueError(message)

    def _refusal(self, fault: _Fault, said: str) -> str:
        if fault.status in (401, 403):
            return f"the server refuses the key in ${self.backend.access.key_env} (HTTP {fault.status})"
        hint = "; if it does not know repetition_penalty, set it to 1" if fault.blames == "repetition_penalty" else ""
        return f"request refused: {said}{hint}"

    def _wait_for_turn(self) -> None:
        if self.turns is not None:
            self.stopped.wait(self.turns.take())

    def _shown(self, words: str) -> str:
        """What the server says, without the key, then cut: a key that is cut first is not found any more."""
        return " ".join(self.secret.hide(_writable(words)).split())[:500]


def _account(backend: EndpointJudge) -> str:
    """Who pays."""
    return os.environ.get("SWEEP_ACCOUNT") or f"{backend.model} at {backend.endpoint}"


def _turns(backend: EndpointJudge, folder: Path) -> Turns | None:
    if backend.access.requests_per_minute is None:
        return None
    # As the server counts: by model and by whoever the key belongs to.
    asked = json.dumps([backend.endpoint, backend.model, backend.access.key_env])
    path = folder / "turns" / hashlib.sha256(asked.encode()).hexdigest()[:32]
    return Turns(path, 60 / backend.access.requests_per_minute)


def _name(path: Path) -> str:
    """What a payment for the answer in `path` is called."""
    return path.stem[:16]


def _key(backend: EndpointJudge) -> str | None:
    name = backend.access.key_env
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise ValueError(
            f"the environment variable {name} is not set on this worker: export it before Ray starts there, "
            "or set access.key_env: null for a server that wants no key"
        )
    if not (key.isascii() and key.isprintable()):
        # Libraries quote what they cannot send.
        raise ValueError(
            f"the environment variable {name} holds characters that no key has (a line break, or not ASCII):"
            " export the key alone, in one line"
        )
    return key


def _read_reply(text: str, headers: Mapping[str, str]) -> _Text | _Fault:
    """A reply with status 200, which some servers and proxies give to anything."""
    try:
        reply = json.loads(text)
    except (ValueError, RecursionError):
        return _Fault("garbled", f"a reply that is not JSON: {text}")
    told = reply if isinstance(reply, dict) else {}
    usage = _usage(told.get("usage"))
    choices = told.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        error = told.get("error")
        if isinstance(error, dict) and isinstance(error.get("code"), int) and error["code"] >= 400:
            return _status_fault(error["code"], error, text, headers)
        return _Fault("garbled", f"no choices in {text}", usage=usage)
    found = choice.get("message")
    message = found if isinstance(found, dict) else {}
    content, ended = message.get("content"), choice.get("finish_reason")
    if ended == "content_filter":
        return _Fault("filtered", "the server's content filter ended the reply", usage=usage)
    if message.get("refusal") and not content:
        return _Fault("filtered", f"the model refuses: {message['refusal']}", usage=usage)
    if content is None and ended == "length":  # a reasoning model that did not get to its answer
        return _Text("", usage)
    if not isinstance(content, str):
        return _Fault("garbled", f"no text in {text}", usage=usage)
    return _Text(_writable(content), usage)


def _writable(text: str) -> str:
    """`text` without halves of characters: JSON can spell them (an emoji cut in two), but no table can hold them."""
    return _HALF.sub("\ufffd", text)


def _status_fault(status: int, body: object, text: str, headers: Mapping[str, str]) -> _Fault:
    """What a status and the error that came with it mean; the spelling of the latter differs between servers."""
    told: Mapping[str, Any] = body if isinstance(body, dict) else {}
    inner = told.get("innererror")
    names = [told.get("code"), told.get("type"), inner.get("code") if isinstance(inner, dict) else None]
    codes = " ".join(str(name) for name in names if name is not None)
    message = told.get("message")
    said = message if isinstance(message, str) else ""
    kind: Kind = "refused"
    if status in _CONFIGURATION:
        kind = "configuration"
    elif status in _BUSY or status >= 500:
        kind = "busy"
    elif _CODE_OF_CONTENT.search(codes) or _WORDS_OF_CONTENT.search(said):
        kind = "filtered"
    elif status == 413 or _WORDS_OF_LENGTH.search(f"{codes} {said or text}"):
        kind = "too long"
    blames = ""
    if kind == "refused":
        param = told.get("param")
        blamed = next((name for name in _PARAMETERS if re.search(rf"\b{name}\b", said)), "")
        blames = param if isinstance(param, str) and param in (*_PARAMETERS, "model", "seed") else blamed
    shown = f"HTTP {status}: {said or text}" + (f" ({codes})" if codes else "")
    return _Fault(kind, shown, status=status, blames=blames, asked=headers.get("retry-after"))


def _usage(usage: object) -> Usage:
    told = usage if isinstance(usage, dict) else {}
    prompt, answer = told.get("prompt_tokens"), told.get("completion_tokens")
    return prompt if isinstance(prompt, int) else None, answer if isinstance(answer, int) else None


def _added(one: Usage, other: Usage) -> Usage:
    """The tokens of two replies; None counts as none, unless both are."""
    first, second = ((a or 0) + (b or 0) if (a, b) != (None, None) else None for a, b in zip(one, other, strict=True))
    return first, second


def _pause(fault: _Fault, tried: int) -> float:
    """Seconds to wait after a failed try: what the server asks for, else doubling from 0.5."""
    if fault.asked is not None and fault.asked.replace(".", "", 1).isdecimal():
        return min(float(fault.asked), LONGEST_PAUSE)
    return min(0.5 * 2.0**tried, LONGEST_PAUSE)


def _read(path: Path) -> Answer | None:
    try:
        return Answer(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):  # never written, or damaged by a crash of the machine
        return None


def _write(path: Path, answer: Answer) -> None:
    """At once: a reader sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", encoding="utf-8", delete=False) as file:
        json.dump(vars(answer), file)
    Path(file.name).replace(path)
