"""Step-tag reward models: a tag is written after each step, and the reward is read there.

The response is written as in the model's training (`tagged.py`) and is the trunk of a packed row. A
prefix that ends inside a step has a branch with the tag, so that one pass scores all prefixes. The
score of a prefix aggregates the rewards of its steps, including the last one, which may be
incomplete. What a template writes after a response follows the last tag and does not change its
reward: open and closed scores are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.checkpoints.checkpoint import context_of
from orchestrator.choices import BRANCH_MEMORY_MIB, Aggregation, Position
from orchestrator.conversations.chat import Chat
from orchestrator.rewards.aggregation import aggregate
from orchestrator.rewards.packed import Branch, PackedRow
from orchestrator.scorers.formats import StepFormat
from orchestrator.scorers.packed_pass import PackedPass
from orchestrator.scorers.scorer import Scorer
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.scorers.step_formats import step_chat
from orchestrator.scorers.step_heads import load_step_model
from orchestrator.scorers.tagged import ScoredText, TaggedText
from orchestrator.search.engines import Ids, Scored, ScoreRequest


class StepTagScorer(Scorer):
    """A process reward model that scores a response step by step, at tags.

    Args:
        checkpoint: folder or hub name.
        position: has no effect on a score.
        policy_chat: tokenizer of the ids in requests; None is the model's.
        device: torch device name.
        aggregation: how the rewards of the steps become the score of a prefix.
        step_delimiter: text that ends a step; None is the default of the head type: a line end for
            a language model (Math-Shepherd), the tag if it is white space, else a blank line.
        step_tag: None is the tag with which the public models of this head type were trained.
        branch_memory_mib: memory limit for the branches of a pass (MiB).
        step_format: how it reads steps; None is detected from the checkpoint.
        fold_system: as in ``ScorerSpec``.

    Raises:
        ValueError: as for ``load_step_model``, or the tokenizer does not keep the delimiter.
    """

    def __init__(
        self,
        checkpoint: str,
        position: Position = "closed",
        policy_chat: Chat | None = None,
        device: str = "cpu",
        aggregation: Aggregation = "last",
        step_delimiter: str | None = None,
        step_tag: str | None = None,
        branch_memory_mib: int = BRANCH_MEMORY_MIB,
        step_format: StepFormat | None = None,
        *,
        fold_system: bool = True,
    ) -> None:
        spec = ScorerSpec(
            checkpoint,
            step_delimiter=step_delimiter,
            step_tag=step_tag,
            step_format=step_format,
            fold_system=fold_system,
        )
        super().__init__(step_chat(spec), position, policy_chat)
        self.context_length = context_of(checkpoint)
        loaded = load_step_model(spec, self.chat, device)
        self._how: Aggregation = aggregation
        self._every = aggregation != "last"  # whether earlier steps' rewards are read too
        self._tag_format, self._bounded = loaded.tag_format, loaded.bounded
        self._pass = PackedPass(loaded.model, self.chat.end_ids[-1], loaded.head, branch_memory_mib)

    def prefix_scores(
        self,
        prompts: Sequence[Ids],
        responses: Sequence[Ids],
        cuts: Sequence[Sequence[int]],
        positions: Sequence[Position] = (),
    ) -> list[list[float]]:
        """Score prefixes in one pass per response; cuts count its tokens without tags."""
        rows, steps = [], []
        for prompt, response, row_cuts in zip(prompts, responses, cuts, strict=True):
            row, numbers = self._row(prompt, response, row_cuts)
            rows.append(row)
            steps.append(numbers)
        self.check_context_length([row.longest for row in rows])
        results = []
        for numbers, rewards in zip(steps, self._pass.score_rows(rows), strict=True):
            scores = [self._of([rewards[i] for i in steps]) for steps in numbers]
            results.append(scores * (len(positions) or 1))
        return results

    def score_in_model_tokens(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """Score requests; a request's prefix is computed once for all its extensions."""
        plans = [self._plan(request) for request in requests]
        trunks = [(row.prompt_ids, plan.trunk) for row, plan in zip(requests, plans, strict=True)]
        rewards, tokens = self._pass.score_branches(trunks, [plan.branches for plan in plans])
        results = []
        for (prompt, trunk), plan, row, count in zip(trunks, plans, rewards, tokens, strict=True):
            scores = (self._of([row[i] for i in numbers]) for numbers in plan.steps)
            total = sum(
                len(prompt + trunk) + sum(len(plan.branches[i].token_ids) for i in numbers)
                for numbers in plan.steps
            )
            results.append(Scored(tuple(scores), count, max(total - count, 0)))
        return results

    def tokens_of_prefixes(
        self, prompt: Ids, response: Ids, cuts: Sequence[int], position: Position | None = None
    ) -> int:
        """Return the number of tokens of one pass, with its tags."""
        return self._row(prompt, response, cuts)[0].tokens

    def _of(self, rewards: Sequence[float]) -> float:
        return aggregate(rewards, self._how, probabilities=self._bounded)

    def closing(self, position: Position) -> Ids:
        """Return the tag, for any position."""
        return self._tag_format.tag_ids

    def _row(
        self, prompt: Ids, response: Ids, cuts: Sequence[int]
    ) -> tuple[PackedRow, list[tuple[int, ...]]]:
        """Return a packed response, and for each cut the indices of the branches of its steps."""
        lengths = [min(t, len(response)) for t in cuts]
        text, read = TaggedText(self.chat, self._tag_format), 0
        scored_texts = {}
        for t in sorted(set(lengths)):
            text.read(response[read:t])
            scored_texts[t], read = text.scored_texts(self._every), t
        plan = _plan(text.token_ids, [scored_texts[t] for t in lengths])
        return PackedRow(prompt, (plan.trunk,), tuple(plan.branches)), plan.steps

    def _plan(self, request: ScoreRequest) -> "_Plan":
        prefix = TaggedText(self.chat, self._tag_format)
        prefix.read(request.prefix_ids)
        scored_texts = []
        for extension in request.extensions:
            text = prefix.copy()
            text.read(extension)
            scored_texts.append(text.scored_texts(self._every, len(prefix.closed)))
        return _plan(prefix.token_ids, scored_texts)


@dataclass(frozen=True)
class _Plan:
    """A trunk, its branches, and for each text the indices of the branches of its steps."""

    trunk: Ids
    branches: list[Branch]
    steps: list[tuple[int, ...]]


def _plan(trunk: Ids, texts: Sequence[Sequence[ScoredText]]) -> _Plan:
    """Return the scored texts as branches of one trunk, each branch once."""
    numbers: dict[Branch, int] = {}
    steps = [
        tuple(numbers.setdefault(one.branch(trunk), len(numbers)) for one in scored_texts)
        for scored_texts in texts
    ]
    return _Plan(trunk, list(numbers), steps)
