"""Reading preference pairs (x, y_w, y_l; section 3) from a file of rows.

``row_forms.py`` parses the rows. Independent of data sets, tokenizers and models.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from orchestrator.data.messages import plain
from orchestrator.data.rejects import BadRow, Seen, check_different, text
from orchestrator.data.row_forms import PAIR_FIELDS, RowPair, pairs_of
from orchestrator.data.rows import Row, file_stem, parsed_rows
from orchestrator.records import Message, PreferencePair, Prompt, Reject

TRUTH = "ground_truth"
PROMPT_ID_BYTES = 8  # the probability of a collision among 10 million prompts is 3 in a million


def read_pairs(
    path: str | Path, parse: Callable[[Row], Iterable[RowPair | BadRow]] = pairs_of
) -> tuple[list[PreferencePair], list[Reject]]:
    """Read all preference pairs of a file, and the rejects, both in the file's order.

    A pair's id is the file's stem and its row number ("file-5"); for ranked completions also their
    positions in the row's list ("file-5:2-1": the second is preferred to the first). A prompt's id
    is the hash of its content, the same in every row and file. An optional ``ground_truth`` (text
    or number) is stored as text in the prompt's facts. ``parse`` replaces the parser of rows. Each
    unusable pair of a row is one reject.
    """
    stem, seen = file_stem(path), Seen()

    def pairs(number: int, row: Row) -> Iterator[PreferencePair | BadRow]:
        for pair in parse(row):
            if isinstance(pair, BadRow):
                yield pair
                continue
            name = f"{stem}-{number}" + (f":{pair.name}" if pair.name else "")
            try:
                yield _pair(name, pair, _facts(row), seen)
            except BadRow as bad:
                yield bad

    return parsed_rows(path, pairs, PAIR_FIELDS | {TRUTH})


def prompt_id(prompt: Sequence[Message]) -> str:
    """Return a short hash of roles and contents, without white space around contents."""
    content = json.dumps(plain(prompt))
    return hashlib.blake2b(content.encode(), digest_size=PROMPT_ID_BYTES).hexdigest()


def _pair(name: str, pair: RowPair, facts: dict[str, object], seen: Seen) -> PreferencePair:
    check_different(pair.chosen, pair.rejected)
    identity = prompt_id(pair.prompt)
    seen.check(identity, pair.chosen, pair.rejected)
    prompt = Prompt(identity, pair.prompt, facts)
    return PreferencePair(name, prompt, pair.chosen, pair.rejected)


def _facts(row: Row) -> dict[str, object]:
    truth = row.get(TRUTH)
    if truth is None:
        return {}
    if isinstance(truth, (int, float)) and not isinstance(truth, bool):
        truth = str(truth)
    return {TRUTH: text(TRUTH, truth)}
