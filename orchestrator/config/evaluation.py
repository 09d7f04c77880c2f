"""Config section of evaluation: agreement tables, held-out pairs, intervals, judges."""

from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator
from pydantic_core import PydanticCustomError

from orchestrator.config.errors import shown
from orchestrator.fields.section import Section
from orchestrator.fields.types import Count, Unique
from orchestrator.judges.judge import JUDGES, Judge
from orchestrator.judges.task_grade import TaskGrade

GRID = 200  # prefix lengths that are measured


def _listed_judge(config_value: object) -> object:
    """Return a judge that a list names, by its name or with its fields."""
    if isinstance(config_value, Judge):
        return config_value
    kinds = {name: kind for name, kind in JUDGES.items() if kind is not TaskGrade}
    listed = {"name": config_value} if isinstance(config_value, str) else config_value
    fields = listed if isinstance(listed, dict) else {}
    name = fields.get("name")
    if not isinstance(name, str) or name not in kinds:
        why = f"{shown(name)}: no such judge" if name is not None else "a judge needs a name"
        if name == TaskGrade.judge_name():
            why = f"{name}: the task's own grade is always a judge"
        valid = f"the names {', '.join(kinds)}" if kinds else "an empty list: no judge is installed"
        raise PydanticCustomError("no_judge", "{why}; valid: {valid}", {"why": why, "valid": valid})
    if unknown := [str(field) for field in fields if field not in kinds[name].model_fields]:
        raise PydanticCustomError(
            "no_field", "unknown key {field}; valid: {valid}",
            {"field": shown(unknown[0]), "valid": ", ".join(kinds[name].model_fields)},
        )  # fmt: skip
    return kinds[name].model_validate(fields)


if TYPE_CHECKING:
    ListedJudge = Judge
else:  # SerializeAsAny: pydantic writes the fields of the judge's own class
    ListedJudge = Annotated[SerializeAsAny[Judge], BeforeValidator(_listed_judge)]


class EvaluationConfig(Section):
    """Evaluation of cells and of prefix scores."""

    agreement_grid: Annotated[list[Count], Unique] = Field(
        default=[5, 10, 15, 20, 25, 30, 35, 40], min_length=1, max_length=GRID
    )
    """Prefix lengths t (tokens) of the agreement tables."""
    pairs_per_prompt: Count = 4
    """Held-out preference pairs made of the samples of each test prompt (help desk)."""
    bootstrap_samples: Count = 2_000
    """Bootstrap samples of each interval, and permutations of each paired test."""
    judges: tuple[ListedJudge, ...] = ()
    """Judges in addition to the task's own grade, by name or as `{name: NAME, FIELD: ...}`. Each
    adds a win-tie rate against the responses of the base policy."""

    @field_validator("judges")
    @classmethod
    def _differ(cls, judges: tuple[Judge, ...]) -> tuple[Judge, ...]:
        names = [judge.judge_name() for judge in judges]
        if doubled := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{doubled[0]} is listed twice; valid: each judge once")
        return judges
