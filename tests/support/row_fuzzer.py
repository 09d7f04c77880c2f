"""A seeded maker of files of rows: good ones of every form, and what may go wrong with them."""

import copy
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 20  # of a file
USER = {"role": "user", "content": "order 3 ."}
AGENT = {"role": "assistant", "content": "thank you ."}
FORMS: list[dict[str, Any]] = [
    {"prompt": "order 1 ."},
    {"prompt": [USER], "prompt_id": "p", "kept": 1.5},
    {"prompt": "order 1 .", "response": "thank you ."},
    {"messages": [USER, AGENT], "note": {"a": [1, None]}},
    {"conversations": [{"from": "human", "value": "order"}, {"from": "gpt", "value": "no ."}]},
    {"prompt": "order 1 .", "chosen": "thank you .", "rejected": "no .", "ground_truth": 18},
    {"chosen": [USER, AGENT], "rejected": [USER, {**AGENT, "content": "no ."}]},
    {"prompt": "order", "completions": [{"text": "no .", "rank": 2}, {"text": "yes", "rank": 1}]},
    {"prompt": '["order"]', "response_a": '["yes"]', "response_b": '["no"]', "winner": "model_a"},
    {"conversation_a": [USER, AGENT], "conversation_b": [USER, {**AGENT, "content": "no"}],
     "winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0},
    {"prompt": "order", "response_1": "yes", "response_2": "no", "preference_strength": -2},
    {"context": "order", "response1": "yes", "response2": "no", "overall_preference": 1},
    {"history": "order", "human_ref_A": "yes", "human_ref_B": "no", "labels": 1},
    {"chosen": "\n\nHuman: order\n\nAssistant: yes",
     "rejected": "\n\nHuman: order\n\nAssistant: no"},
    {"question": "2 + 2 ?", "answer": "so 4\n#### 4"},
    {"problem": "2 + 2 ?", "solution": "so \\boxed{4}"},
    {"instruction": "order", "input": "", "system": "the manual", "response": "yes"},
]  # fmt: skip


def deep(levels: int) -> Any:
    """Lists in lists."""
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


ODD: list[Any] = [
    None, True, False, 0, -1, 7, 2.5, 10**30, 10**400, -(2**63), 1e308, float("nan"), float("inf"),
    "", " ", "\n", "\0", "\ud800", "x", "[", "[" * 200, '["a", null]', '["a", 5]', "é" * 500,
    "order " * 2_000, "9" * 5_000, [], {}, [[]], [{}], [None], {"role": "user"}, [USER, USER],
    [AGENT], [{"role": "tool", "content": "x"}], [{"from": "human", "value": None}],
    [{**USER, "content": [{"type": "text", "text": "order"}]}],
    [{**USER, "content": [{"type": "image"}]}], deep(40), deep(150),
    {f"k{i}": i for i in range(400)}, list(range(400)), [{"text": "a", "rank": 1}] * 300,
    "tie", "model_b", "#### 1e5", "\\boxed{", "$" * 400, "1," * 400, "#### " + "1" * 3_000,
]  # fmt: skip
NAMES = [*sorted({name for form in FORMS for name in form}), "text", "", "a.b", "ROW"]


class RowFuzzer:
    """Makes files; the same seed makes the same ones."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def file(self, folder: Path, number: int) -> tuple[Path, int]:
        """A file, and how many rows it was made of."""
        suffix = self._random.choice([".jsonl", ".jsonl", ".jsonl.gz", ".json", ".parquet"])
        form = self._random.choice(FORMS)
        count = 0 if self._random.random() < 0.02 else ROWS
        rows = [self._row(form, i) for i in range(count)]
        place = folder / f"rows{number}{suffix}"
        if suffix == ".parquet":
            self._write_parquet(place, rows)
        else:
            content = self._lines(rows)
            place.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
        if suffix in (".jsonl.gz", ".parquet") and self._random.random() < 0.3:
            place.write_bytes(self._damaged(place.read_bytes()))
        return place, count

    def _row(self, form: dict[str, Any], number: int) -> dict[str, Any]:
        usual = self._random.random() < 0.9
        row = copy.deepcopy(form if usual else self._random.choice(FORMS))
        for name in ("prompt", "question", "problem"):  # rows that are no copies of each other
            if isinstance(row.get(name), str) and not row[name].startswith("["):
                row[name] += f" {number}"
        if "prompt_id" in row:
            row["prompt_id"] = self._random.choice([f"p{number}", f"p{number}", "p1", number])
        for _ in range(self._random.choice([0, 0, 1, 1, 2, 4])):
            self._change(row)
        return row

    def _change(self, row: dict[str, Any]) -> None:
        name = self._random.choice(list(row) or NAMES)
        odd = copy.deepcopy(self._random.choice(ODD))
        changes: list[Callable[[], Any]] = [
            lambda: row.pop(name, None),
            lambda: row.update({name: odd}),
            lambda: row.update({self._random.choice(NAMES): odd}),
            lambda: row.update({self._random.choice(NAMES): row.get(name)}),
            lambda: self._change_inside(row.get(name), odd),
        ]
        self._random.choice(changes)()

    def _change_inside(self, value: Any, odd: Any) -> None:
        if isinstance(value, list) and value:
            place = self._random.randrange(len(value))
            if isinstance(value[place], dict) and self._random.random() < 0.7:
                self._change(value[place])
            else:
                value[place] = odd

    def _lines(self, rows: list[dict[str, Any]]) -> bytes:
        kind = self._random.random()
        if kind < 0.03:
            return json.dumps(rows).encode()
        if kind < 0.06:
            return json.dumps(rows, indent=1).encode()
        if kind < 0.08:
            return "\n".join(json.dumps(row, indent=1) for row in rows).encode()
        ending = self._random.choice([b"\n", b"\n", b"\r\n"])
        return b"".join(self._line(row) + ending for row in rows)

    def _line(self, row: dict[str, Any]) -> bytes:
        line = json.dumps(row, ensure_ascii=self._random.random() < 0.5).encode(
            errors="surrogatepass"
        )
        if self._random.random() < 0.9 or not line:
            return line
        place = self._random.randrange(len(line))
        odd = bytes([self._random.randrange(256)]).replace(b"\n", b"?").replace(b"\r", b"?")
        return self._random.choice(
            [
                line[:place], line[:place] + odd + line[place + 1 :], line + line,
                line.replace(b"{", b'{"prompt": "twice", ', 1), b"\xef\xbb\xbf" + line, b"#" + line,
                b"[" + line + b"]", line.replace(b'"', b"'"), b"null", b"1" * 5_000,
            ]
        )  # fmt: skip

    def _damaged(self, content: bytes) -> bytes:
        place = self._random.randrange(len(content))
        if self._random.random() < 0.5:
            return content[:place]
        flipped = bytearray(content)
        for _ in range(self._random.choice([1, 3, 10])):
            flipped[self._random.randrange(len(content))] ^= 1 << self._random.randrange(8)
        return bytes(flipped)

    def _write_parquet(self, place: Path, rows: list[dict[str, Any]]) -> None:
        names = list(dict.fromkeys(name for row in rows for name in row)) or ["prompt"]
        columns = [(name, _column([row.get(name) for row in rows])) for name in names]
        columns += [("extra", odd) for odd in self._odd_columns(len(rows))]
        if self._random.random() < 0.1:
            columns.append(self._random.choice(columns))
        table = pa.Table.from_arrays([c for _, c in columns], [name for name, _ in columns])
        options = {"row_group_size": self._random.choice([3, 1_000]),
                   "compression": self._random.choice(["none", "snappy", "gzip"]),
                   "write_page_checksum": self._random.random() < 0.5}  # fmt: skip
        pq.write_table(table, place, **options)

    def _odd_columns(self, count: int) -> list[pa.Array]:
        """At times one that Python has no like of."""
        far = pa.array([2**62] * count, pa.timestamp("us"))
        texts = pa.array([b"caf\xe9"] * count, pa.binary())
        invalid = pa.Array.from_buffers(pa.string(), count, texts.buffers())
        odd = [far, invalid, texts, pa.array([3] * count, pa.duration("ns")), pa.nulls(count),
               pa.array([1] * count, pa.time64("ns")), far.cast(pa.int64())]  # fmt: skip
        return [self._random.choice(odd)] if self._random.random() < 0.3 else []


def _column(values: list[Any]) -> pa.Array:
    """Values as a column, of mixed types as text."""
    try:
        found = pa.array(values)
        pq.write_table(pa.table({"x": found}), pa.BufferOutputStream())
        return found
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        texts = [None if v is None else v if isinstance(v, str) else json.dumps(v) for v in values]
        return pa.array([t and t.encode(errors="replace").decode() for t in texts], pa.string())
