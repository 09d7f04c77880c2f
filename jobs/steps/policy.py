"""Step 2: the policy, by supervised fine-tuning of a new small Llama on the demonstrations."""

from pathlib import Path

from jobs.steps.sweep import Figures, Step, Sweep
from jobs.steps.training import train
from orchestrator.config.sections import HelpdeskData, to_plain
from orchestrator.data.rejects import refuse, too_long, write_rejects
from orchestrator.data.tables import read_demonstrations
from orchestrator.engines.chat import Chat, load_chat
from orchestrator.engines.checkpoints import new_policy, save_checkpoint
from orchestrator.engines.tokenizers import byte_pair_tokenizer, word_tokenizer
from orchestrator.records import Demonstration, Reject
from orchestrator.stages.progress import Meter
from orchestrator.training.examples import TextExample
from orchestrator.training.files import write_examples
from orchestrator.world.words import vocabulary


def run(sweep: Sweep, step: Step, folder: Path, meter: Meter) -> Figures:
    """Makes tokenizer and random weights, tokenizes the demonstrations, trains."""
    config = sweep.config
    rows = read_demonstrations(sweep.file("data", "demonstrations.parquet"))
    if isinstance(config.data, HelpdeskData):
        tokenizer = word_tokenizer(vocabulary())
    else:
        texts = (text for row in rows for text in (*_contents(row), row.response))
        tokenizer = byte_pair_tokenizer(texts, config.models.vocabulary)
    start = folder / "start"
    architecture = to_plain(config.models.architecture)
    save_checkpoint(new_policy(tokenizer, architecture, config.seed), tokenizer, start)
    examples, rejects = _tokenized(
        rows, load_chat(str(start)), architecture["max_position_embeddings"]
    )
    write_examples(folder / "examples.parquet", examples)
    write_rejects(folder / "rejects.parquet", rejects)
    figures = train(
        sweep,
        step,
        "language_modelling",
        "policy",
        str(start),
        config.training.policy,
        folder,
        meter,
    )
    figures["metrics"]["rejects"] = len(rejects)
    return figures


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
            rejects.append(refuse("demonstrations", number, reason, row.response))
        else:
            examples.append(TextExample(prompt, response))
    return examples, rejects
