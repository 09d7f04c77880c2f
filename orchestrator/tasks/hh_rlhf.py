"""HH-RLHF (appendix C.1): helpful and harmless dialogue; responses cannot be checked."""

from typing import Literal, Self

from pydantic import model_validator

from orchestrator.fields.types import Share, Text
from orchestrator.records import Demonstration
from orchestrator.tasks.task import (
    Progress,
    Task,
    TaskData,
    check_shares,
    register,
    require_usable_rows,
)


@register
class HHRLHF(Task):
    """HH-RLHF pairs from a JSONL or Parquet file, raw transcripts or parsed; split by prompt."""

    task: Literal["hh_rlhf"] = "hh_rlhf"
    """Preference pairs as transcripts or in another form, split by prompt."""
    pairs: Text
    """File of preference pairs ([data.md](data.md))."""
    policy_share: Share = 0.3
    """Share of the training prompts whose chosen responses the policy imitates; 0 only if
    `models.policy` is set."""
    orm_share: Share = 0.2
    """Share of the training prompts for the ORM; 0 only if `models.orm` is set."""
    reference_share: Share = 0.3
    """Share of the training prompts for the reference reward model; 0 only if it is not trained.
    The PRM takes the remaining prompts."""

    file_fields = ("pairs",)

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        check_shares(self, "policy_share", "orm_share", "reference_share")
        return self

    def read(self, seed: int, progress: Progress) -> TaskData:
        """Read the pairs; the policy's share becomes demonstrations."""
        from orchestrator.data.splits import split_pairs
        from orchestrator.data.transcripts import read_hh

        pairs, rejects = require_usable_rows(self.pairs, *read_hh(self.pairs))
        shares = {
            "policy": self.policy_share, "orm": self.orm_share, "reference": self.reference_share,
        }  # fmt: skip
        splits = split_pairs(pairs, shares, self.test_prompts, seed)
        demonstrations = [Demonstration(pair.prompt, pair.chosen) for pair in splits.pop("policy")]
        test = list({pair.prompt.prompt_id: pair.prompt for pair in splits["test"]}.values())
        return TaskData(demonstrations, test[: self.test_prompts], splits, rejects=rejects)
