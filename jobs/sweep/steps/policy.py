"""Step 2: the policy, by supervised fine-tuning of a new small Llama on the demonstrations."""

from collections.abc import Sequence
from pathlib import Path

from jobs.sweep.readers import Reader, check_some_fit, refused
from jobs.sweep.sweep import Figures, Step, Sweep
from jobs.sweep.training import train
from orchestrator.checkpoints.checkpoint import context_of, new_policy, save_checkpoint
from orchestrator.config.sections import to_plain
from orchestrator.conversations.chat import Chat, load_chat
from orchestrator.conversations.tokenizers import byte_pair_tokenizer, word_tokenizer
from orchestrator.data.rejects import make_reject, too_long, write_rejects
from orchestrator.data.tables import read_demonstrations, read_pairs_table, read_prompts
from orchestrator.objectives.definitions.language_modelling import LanguageModelling
from orchestrator.records import Demonstration, Reject
from orchestrator.stages.progress import Meter
from orchestrator.tasks.task import PAIR_SPLITS
from orchestrator.training.examples import TextExample
from orchestrator.training.files import write_examples


def run(sweep: Sweep, step: Step, folder: Path, meter: Meter) -> Figures:
    """Makes tokenizer and random weights, tokenizes the demonstrations, trains."""
    config = sweep.config
    rows = read_demonstrations(sweep.file("data", "demonstrations.parquet"))
    if (words := config.data.vocabulary()) is not None:
        tokenizer = word_tokenizer(words)
    else:
        texts = (text for row in rows for text in (*_contents(row), row.response))
        tokenizer = byte_pair_tokenizer(texts, config.models.vocabulary)
    start = folder / "start"
    architecture = to_plain(config.models.architecture)
    save_checkpoint(new_policy(tokenizer, architecture, config.seed), tokenizer, start)
    examples, rejects = _tokenized(
        rows, load_chat(str(start)), architecture["max_position_embeddings"]
    )
    _check_room(sweep, str(start), rejects, len(rows))
    write_examples(folder / "examples.parquet", examples)
    write_rejects(folder / "rejects.parquet", rejects)
    figures = train(
        sweep,
        step,
        LanguageModelling.name,
        "policy",
        str(start),
        config.training.policy,
        folder,
        meter,
    )
    figures["metrics"]["rejects"] = len(rejects)
    return figures


def _check_room(sweep: Sweep, start: str, rejects: Sequence[Reject], rows: int) -> None:
    """Checks, before anything is trained, that the context has room for some of each split.

    Raises:
        ValueError: no demonstration, no pair of a split or no test prompt fits.
    """
    if len(rejects) == rows:
        check_some_fit("demonstrations", (reject.reason for reject in rejects))
    if sweep.config.data.samples_pairs:
        return  # its pairs are not sampled yet
    own = [Reader("policy", load_chat(start), context_of(start))]
    for name in (*PAIR_SPLITS, "test"):
        pairs = read_pairs_table(sweep.file("data", f"pairs_{name}.parquet"))
        texts = ((p.prompt.messages, (p.chosen, p.rejected)) for p in pairs)
        check_some_fit(f"pairs for {name}", (refused(own, *text) for text in texts))
    prompts = read_prompts(sweep.file("data", "prompts_test.parquet"))
    room = sweep.config.decoding.max_new_tokens
    check_some_fit("test prompts", (refused(own, p.messages, (), room) for p in prompts))


def _contents(row: Demonstration) -> list[str]:
    return [message["content"] for message in row.prompt.messages]


def _tokenized(
    rows: list[Demonstration], chat: Chat, limit: int
) -> tuple[list[TextExample], list[Reject]]:
    examples, rejects = [], []
    for number, row in enumerate(rows):
        prompt, response = chat.answered(row.prompt.messages, row.response)
        response += (chat.end_id,)
        reason = too_long(len(prompt) + len(response), limit)
        if reason:
            rejects.append(make_reject("demonstrations", number, reason, row.response))
        else:
            examples.append(TextExample(prompt, response))
    return examples, rejects
