"""Rows of data sets as dialogues, for the stages `prompts`, `demonstrations`, `preferences` and `test_sets`.

Forms of row (`Columns` can give other names to their columns):

- `chosen`, `rejected`: whole hh-rlhf transcripts "\\n\\nHuman: …\\n\\nAssistant: …", split at the last "Assistant:";
  or whole dialogues as lists of messages `{role, content}`, of which the last one is the answer;
- `prompt`, `chosen`, `rejected`: the answers by themselves, as text or as a list with one message. Where their lists
  are whole dialogues (UltraFeedback), the prompt is taken from those;
- `prompt`, `first`, `second`, `label`: two answers, and which of them is the better one;
- `prompt`, `response`: one answer; no preferences can be made of it.

The form of a file is the one whose columns most of its rows have. A `subset` column names the subset of a row.

A system message becomes the first paragraph of the human turn that follows: transcripts have no third speaker, and no
instruction to the model is lost. Messages of one speaker in a row are one turn, with an empty line between them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from workers.config import Data, LocalPath
from workers.data.configs import Columns
from workers.data.dialogues import ASSISTANT, HUMAN, Dialogue, as_answer, as_prompt, as_question, join_turns
from workers.data.rows import Row, read_rows

_SPEAKERS = {"system": HUMAN, "user": HUMAN, "assistant": ASSISTANT}
_PLAIN = Columns(chosen="chosen", rejected="rejected", subset="subset")
#: Published sets with two answers and a label.
_LABELLED = {
    "PKU-SafeRLHF": Columns(first="response_0", second="response_1", label="better_response_id", label_of_first=0),
    "LLMBar": Columns(prompt="input", first="output_1", second="output_2", label="label"),
    "EvalBiasBench": Columns(prompt="instruction", first="response1", second="response2", label="label", subset="bias"),
    "judgments of Con-J": Columns(prompt="question", first="answer_1", second="answer_2", label="label"),
}
_FORMS = "chosen, rejected (whole dialogues) | prompt, chosen, rejected | prompt, response | " + " | ".join(
    f"{each.prompt}, {each.first}, {each.second}, {each.label} ({name})" for name, each in _LABELLED.items()
)
#: Lines shown in an error, and printed when rows are skipped.
_SHOWN, _PRINTED = 5, 100


class _IncompleteRowError(Exception):
    """Raised for a row that cannot be read; the message names what it lacks."""


def read_dialogues(
    source: Data,
    *,
    incomplete_rows: Literal["error", "skip"],
    columns: Columns | None = None,
    pairs: bool = False,
) -> tuple[list[Dialogue], int]:
    """Read the dialogues of `source` in its order, and count the incomplete rows left out (each printed).

    A row is incomplete when its line is not a JSON object, or its prompt or answer is missing, null, not text, empty,
    or only white space. With `pairs` the rejected answer must be there too, answer the same prompt (in hh-rlhf 5 of
    2,312 harmless test rows do not: the transcripts part in an earlier turn), and differ from the chosen one: two
    equal answers carry no preference.

    Raises:
        FileNotFoundError: no such file on this machine.
        OSError: the Hub data set could not be loaded.
        ValueError: rows are incomplete and `incomplete_rows` is "error"; or nothing usable is in the file; or it has
            none of the known forms, or none with a rejected answer although `pairs`; or its labels have more than two
            values; or its content is not the one that the sweep was planned with.
    """
    name = source.path if isinstance(source, LocalPath) else source.hub
    rows = read_rows(source)
    if not rows:
        raise ValueError(f"{name}: no rows")
    form = _form(rows, name, columns, pairs)
    dialogues, faults = [], []
    for row in rows:
        try:
            dialogues.append(form.dialogue(row, pairs))
        except _IncompleteRowError as fault:
            faults.append(f"{row.place}: {fault}")
    if faults and incomplete_rows == "error":
        raise ValueError(
            f"{name}: {len(faults)} of {len(rows)} rows are incomplete\n{_listing(faults, _SHOWN)}\n"
            "Repair them, or set incomplete_rows: skip to leave them out and count them."
        )
    if faults:
        print(f"{name}: skipped {len(faults)} of {len(rows)} rows\n{_listing(faults, _PRINTED)}")
    if not dialogues:
        raise ValueError(f"{name}: none of its {len(rows)} rows is complete\n{_listing(faults, _SHOWN)}")
    return dialogues, len(faults)


@dataclass(frozen=True)
class _Form:
    """A form of row: the columns of its prompt and answers."""

    columns: Columns | None
    """None stands for `prompt`, `response`."""
    prompt: bool = True
    """Whether rows have a prompt column."""

    def dialogue(self, row: Row, pairs: bool) -> Dialogue:
        if self.columns is None:
            return Dialogue(*_answered(row, "response", "prompt"))
        chosen_in, rejected_in = _better_and_worse(row, self.columns)
        prompt_in = self.columns.prompt if self.prompt else None
        prompt, chosen = _answered(row, chosen_in, prompt_in)
        subset = _subset(row, self.columns)
        if not pairs:
            return Dialogue(prompt, chosen, subset=subset)
        other_prompt, rejected = _answered(row, rejected_in, prompt_in)
        if other_prompt != prompt:
            raise _IncompleteRowError(f"{chosen_in} and {rejected_in} answer different prompts")
        if chosen == rejected:
            raise _IncompleteRowError(f"{chosen_in} and {rejected_in} are the same answer: no preference")
        return Dialogue(prompt, chosen, rejected, subset)


def _form(rows: list[Row], name: str, columns: Columns | None, pairs: bool) -> _Form:
    forms = Counter(form for row in rows if (form := _form_of(row.values, columns)))
    if not forms:
        if fault := next((f"{row.place}: {row.fault}" for row in rows if row.fault), None):
            raise ValueError(f"{name}: no row could be read; {fault}")
        expected = _FORMS if columns is None else f"{', '.join(_needed(columns))}, as `columns` says"
        raise ValueError(f"{name}: columns {_all_columns(rows)}; expected one of: {expected}")
    form = forms.most_common(1)[0][0]
    if pairs and form.columns is None:
        raise ValueError(f"{name}: rows have columns prompt, response; preferences also need a rejected answer")
    if columns is not None and columns.subset is not None and not any(columns.subset in row.values for row in rows):
        raise ValueError(f"{name}: columns {_all_columns(rows)}; there is no {columns.subset!r}, the `subset` column")
    if form.columns is not None and form.columns.label is not None:
        _require_two_values(rows, name, form.columns)
    return form


def _form_of(values: Mapping[str, Any], columns: Columns | None) -> _Form | None:
    if columns is not None:
        return _Form(columns, columns.prompt in values) if set(_needed(columns)) <= values.keys() else None
    if "chosen" in values:
        return _Form(_PLAIN, "prompt" in values)
    for known in _LABELLED.values():
        if {known.prompt, *_needed(known)} <= values.keys():
            return _Form(known)
    return _Form(None) if {"prompt", "response"} <= values.keys() else None


def _needed(columns: Columns) -> list[str]:
    """Return the columns that every row of this form has, besides the prompt, which rows may lack."""
    named = (columns.chosen,) if columns.label is None else (columns.first, columns.second, columns.label)
    return [name for name in named if name is not None]


def _all_columns(rows: list[Row]) -> list[str]:
    return sorted({column for row in rows for column in row.values})


def _require_two_values(rows: list[Row], name: str, columns: Columns) -> None:
    found = (row.values.get(str(columns.label)) for row in rows)
    labels = {_format(label) for label in found if label is not None}
    others = sorted(labels - {_format(columns.label_of_first)})
    if len(others) > 1:
        raise ValueError(
            f"{name}: {columns.label!r} is {columns.label_of_first} where the first answer is the better one, and "
            f"besides has the values {', '.join(others[:_SHOWN])}: exactly one can stand for the second. Set "
            "`label_of_first`, or leave undecided rows out of the file."
        )


def _better_and_worse(row: Row, columns: Columns) -> tuple[str, str]:
    """Return the columns of the chosen and of the rejected answer."""
    if columns.label is None:
        return str(columns.chosen), str(columns.rejected)
    label = _value(row, columns.label)
    pair = str(columns.first), str(columns.second)
    return pair if _format(label) == _format(columns.label_of_first) else (pair[1], pair[0])


def _format(label: object) -> str:
    """Format 1, 1.0, True and "1" alike: Parquet makes floats of integers where some are missing."""
    whole = isinstance(label, bool) or (isinstance(label, float) and label.is_integer())
    return str(int(label)) if whole else str(label).strip()  # type: ignore[call-overload]


def _subset(row: Row, columns: Columns) -> str:
    value = row.values.get(columns.subset) if columns.subset else None
    return "" if value is None else _unicode(str(value).strip(), str(columns.subset))


def _answered(row: Row, column: str, prompt_column: str | None) -> tuple[str, str]:
    """Return the prompt and the answer in `column`."""
    if isinstance(value := _value(row, column), list):
        turns = _turns(value, column)
        if turns[-1][0] != ASSISTANT:
            raise _IncompleteRowError(f"{column} ends with the human's turn, not with an answer")
        if len(turns) > 1:
            prompt = join_turns(turns[:-1])
            # As text it may be the last question only; as messages it is all that the model was shown.
            own = row.values.get(prompt_column) if prompt_column else None
            if isinstance(own, list) and _question(row, str(prompt_column)) != prompt:
                raise _IncompleteRowError(f"{prompt_column} and {column} begin with different messages")
            return prompt, _own_response(turns[-1][1], column)
        value = turns[0][1]
        if prompt_column is None:
            raise _IncompleteRowError(f"{column} is an answer without a question, and there is no prompt")
    elif prompt_column is None:
        return _split_transcript(_text(value, column), column)
    return _question(row, prompt_column), _own_response(_text(value, column), column)


def _split_transcript(text: str, column: str) -> tuple[str, str]:
    before, marker, after = f"\n\n{text.strip()}".rpartition(ASSISTANT)
    if not marker:
        raise _IncompleteRowError(f'no "\\n\\nAssistant:" in {column}')
    if HUMAN in after:
        raise _IncompleteRowError(f"{column} ends with the human's turn, not with an answer")
    if not after.strip():
        raise _IncompleteRowError(f"the answer in {column} is empty")
    return _checked_prompt(before + marker), f" {after.strip()}"


def _question(row: Row, column: str) -> str:
    """Return the prompt in a column of its own."""
    if isinstance(value := _value(row, column), list):
        turns = _turns(value, column)
        if turns[-1][0] != HUMAN:
            raise _IncompleteRowError(f"{column} ends with an answer of the Assistant, not with a question")
        return join_turns(turns)
    return _checked_prompt(_text(value, column), as_question)


def _checked_prompt(text: str, to_prompt: Callable[[str], str] = as_prompt) -> str:
    try:
        return to_prompt(text)
    except ValueError as error:
        raise _IncompleteRowError(str(error)) from error


def _own_response(text: str, column: str) -> str:
    if not text.strip():
        raise _IncompleteRowError(f"the answer in {column} is empty")
    return as_answer(text)


def _turns(messages: list[Any], column: str) -> list[tuple[str, str]]:
    """Return (`HUMAN` or `ASSISTANT`, text) of each turn of a list of messages, at least one."""
    turns: list[tuple[str, str]] = []
    for number, message in enumerate(messages, start=1):
        where = f"message {number} of {column}"
        if not isinstance(message, dict) or message.get("role") not in _SPEAKERS:
            raise _IncompleteRowError(f"{where} has no role, or none of {', '.join(_SPEAKERS)}")
        text = _text(message.get("content"), where)
        if not text.strip():
            if message["role"] == "system":
                continue
            raise _IncompleteRowError(f"{where} is empty")
        speaker = _SPEAKERS[message["role"]]
        if turns and turns[-1][0] == speaker:
            turns[-1] = (speaker, f"{turns[-1][1].rstrip()}\n\n{text.strip()}")
        else:
            turns.append((speaker, text))
    if not turns:
        raise _IncompleteRowError(f"{column} has no messages")
    return turns


def _value(row: Row, column: str) -> Any:
    if row.fault:
        raise _IncompleteRowError(row.fault)
    if column not in row.values:
        raise _IncompleteRowError(f"no {column}")
    if (value := row.values[column]) is None:
        raise _IncompleteRowError(f"{column} is null")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise _IncompleteRowError(f"{where} is a {type(value).__name__}, not text")
    return _unicode(value, where)


def _unicode(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        # JSON can spell half a surrogate pair; Parquet cannot store it.
        raise _IncompleteRowError(f"{where} is not valid Unicode ({error.reason})") from error
    return text


def _listing(faults: list[str], most: int) -> str:
    more = [f"… and {len(faults) - most} more"] if len(faults) > most else []
    return "\n".join(f"  {line}" for line in faults[:most] + more)
