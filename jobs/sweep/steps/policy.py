"""The stage ``policy``: fine-tune a new small Llama on the demonstrations."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.sweep.training import Trainer
from orchestrator.checkpoints.checkpoint import context_of, new_policy, save_checkpoint
from orchestrator.config.sections import (
    Architecture,
    to_plain,
)
from orchestrator.config.training import Optimization
from orchestrator.conversations.chat import Chat, load_chat
from orchestrator.conversations.tokenizers import byte_pair_tokenizer, word_tokenizer
from orchestrator.data.context_length import ContextLimit, check_any_usable, first_rejection_reason
from orchestrator.data.rejects import conversation_too_long, make_reject, write_rejects
from orchestrator.data.tables import read_demonstrations, read_pairs_table, read_prompts
from orchestrator.objectives.definitions.language_modelling import LanguageModelling
from orchestrator.objectives.examples import TextExample
from orchestrator.records import Demonstration, Reject
from orchestrator.stages.progress import ProgressBar
from orchestrator.stages.result import StageResult
from orchestrator.tasks.task import PAIR_SPLITS, Task
from orchestrator.training.files import write_examples


@dataclass(frozen=True)
class PolicyInputs:
    """Inputs of the step.

    Attributes:
        task: determines whether the vocabulary is closed.
        data_folder: folder of the stage `data`.
        architecture: size of the new model.
        vocabulary: entries of a byte-pair tokenizer.
        seed: seed of the run.
        max_new_tokens: largest number of tokens of a response.
        optimization: settings of the training.
        trainer: trains the stage's model.
    """

    task: Task
    data_folder: Path
    architecture: Architecture
    vocabulary: int
    seed: int
    max_new_tokens: int
    optimization: Optimization
    trainer: Trainer


def run(inputs: PolicyInputs, folder: Path, progress: ProgressBar) -> StageResult:
    """Create tokenizer and random weights, tokenize the demonstrations, and train the policy."""
    rows = read_demonstrations(inputs.data_folder / "demonstrations.parquet")
    if (words := inputs.task.vocabulary()) is not None:
        tokenizer = word_tokenizer(words)
    else:
        texts = (text for row in rows for text in (*_contents(row), row.response))
        tokenizer = byte_pair_tokenizer(texts, inputs.vocabulary)
    start = folder / "start"
    architecture = to_plain(inputs.architecture)
    save_checkpoint(new_policy(tokenizer, architecture, inputs.seed), tokenizer, start)
    examples, rejects = _tokenized(
        rows, load_chat(str(start)), architecture["max_position_embeddings"]
    )
    _check_context_length(inputs, str(start), rejects, len(rows))
    write_examples(folder / "examples.parquet", examples)
    write_rejects(folder / "rejects.parquet", rejects)
    result = inputs.trainer.train(
        LanguageModelling.name, "policy", str(start), inputs.optimization, folder, progress
    )
    result["metrics"]["rejects"] = len(rejects)
    return result


def _check_context_length(
    inputs: PolicyInputs, start: str, rejects: Sequence[Reject], rows: int
) -> None:
    """Check, before training, that some texts of each kind fit in the policy's context.

    Raises:
        ValueError: no demonstration, no pair of a split or no test prompt fits.
    """
    if len(rejects) == rows:
        check_any_usable("demonstrations", (reject.reason for reject in rejects))
    limits = [ContextLimit("policy", load_chat(start), context_of(start))]
    # Pairs that the policy samples do not exist yet.
    for name in () if inputs.task.samples_pairs else (*PAIR_SPLITS, "test"):
        pairs = read_pairs_table(inputs.data_folder / f"pairs_{name}.parquet")
        texts = ((p.prompt.messages, (p.chosen, p.rejected)) for p in pairs)
        check_any_usable(
            f"pairs for {name}", (first_rejection_reason(limits, *text) for text in texts)
        )
    prompts = read_prompts(inputs.data_folder / "prompts_test.parquet")
    reasons = (
        first_rejection_reason(limits, p.messages, (), inputs.max_new_tokens) for p in prompts
    )
    check_any_usable("test prompts", reasons)


def _contents(row: Demonstration) -> list[str]:
    return [message["content"] for message in row.prompt.messages]


def _tokenized(
    rows: list[Demonstration], chat: Chat, limit: int
) -> tuple[list[TextExample], list[Reject]]:
    examples, rejects = [], []
    for number, row in enumerate(rows):
        prompt, response = chat.answered(row.prompt.messages, row.response)
        response += (chat.end_id,)
        reason = conversation_too_long(len(prompt) + len(response), "policy", limit)
        if reason:
            rejects.append(make_reject("demonstrations", number, reason, row.response))
        else:
            examples.append(TextExample(prompt, response))
    return examples, rejects
