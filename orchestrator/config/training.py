"""Config section of training: the trainings of a run, and what they share."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from orchestrator.fields.section import Section
from orchestrator.fields.types import Count, Flag, Integer, NonNegativeInt, Positive, Text


class Optimization(Section):
    """One training: AdamW with a linear schedule (paper C.4).

    The rate rises over `warmup_steps` and then falls linearly to zero.
    """

    learning_rate: Positive
    """Peak learning rate."""
    batch_size: Count
    """Rows, pairs or partial pairs of one optimizer step, over all workers."""
    epochs: Count = 1
    """Passes over the training data. It must not be set together with `max_steps`."""
    max_steps: Count | None = None
    """Exact number of optimizer steps, over as many epochs as they take; null: `epochs` decides."""
    warmup_steps: NonNegativeInt = 0
    """Optimizer steps in which the learning rate rises; at most as many as the training has."""


class TrainingConfig(Section):
    """How models are trained, by Ray Train with DeepSpeed.

    If only one field of a training is set, such as `training.orm.learning_rate`, the others keep
    their defaults for this training. `max_steps` is null by default if `epochs` is set.
    """

    workers: Count = 2
    """Training processes, which train data-parallel."""
    zero_stage: Annotated[int, Field(ge=0, le=3), Integer] = 1
    """DeepSpeed ZeRO stage: 1 shards the optimizer, 2 also the gradients, 3 also the weights."""
    deepspeed: Text = "configs/deepspeed/default.json"
    """File of DeepSpeed settings: optimizer (required), gradient clipping, ZeRO. Settings unknown
    to DeepSpeed are errors. So are those that other fields decide: learning rate, scheduler, batch
    sizes, precision, a different ZeRO stage."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of autocast; weights are always float32. `auto` takes bfloat16 if the device trains
    clearly faster in it, else float32 ([Precision](training.md#precision))."""
    micro_batch_tokens: Count | None = None
    """Padded tokens of one forward pass. The rows of a step are split into micro-batches of similar
    length, whose gradients are added. null: all rows of a worker in one micro-batch."""
    gradient_checkpointing: Flag = False
    """Whether activations are recomputed in the backward pass: less memory, more time."""
    checkpoint_steps: Count | None = 500
    """Steps between two checkpoints from which an interrupted training resumes; null: none are
    written."""
    evaluation_pairs: NonNegativeInt = 128
    """Held-out pairs on which a reward model is evaluated during training (loss, accuracy, and the
    agreement AR(t) at the lengths of `evaluation.agreement_grid`); 0: no evaluation."""
    evaluation_steps: Count | None = 100
    """Steps between two evaluations; one more is made at the end. null: at the end only. It must
    not be set if `evaluation_pairs` is 0."""
    policy: Optimization = Optimization(learning_rate=3e-3, batch_size=64, max_steps=350)
    """Supervised fine-tuning of the policy; the batch counts rows."""
    orm: Optimization = Optimization(learning_rate=1e-3, batch_size=32)
    """Training of the ORM on whole responses (Eq. 1); the batch counts pairs."""
    reference: Optimization = Optimization(learning_rate=1e-3, batch_size=32)
    """Training of the reference reward model on its own pairs (Eq. 1); the batch counts pairs."""
    prm: Optimization = Optimization(learning_rate=5e-4, batch_size=128)
    """Training of the variants that start from the ORM (Eq. 3). The batch counts partial pairs; a
    variant with truncation `whole` takes the batch size of the ORM."""
    implicit: Optimization = Optimization(learning_rate=1e-4, batch_size=32)
    """Training of implicit PRMs; the batch counts pairs."""

    @field_validator("policy", "orm", "reference", "prm", "implicit", mode="before")
    @classmethod
    def _over_the_default(cls, config_value: object, info: ValidationInfo) -> object:
        """Fill the fields of a training that are not set with the defaults above.

        If ``epochs`` is set, it decides the number of steps, and not the default ``max_steps``.
        """
        if not isinstance(config_value, dict):
            return config_value
        default = cls.model_fields[str(info.field_name)].default
        replaced = {"max_steps"} if "epochs" in config_value else None
        return default.model_dump(exclude_unset=True, exclude=replaced) | config_value
