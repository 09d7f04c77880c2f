"""Names of the costs of a response: counts and seconds of ``Cost``, and FLOPs."""

from dataclasses import fields

from orchestrator.evaluation.flops import FLOPS
from orchestrator.records import Cost

COUNTS = tuple(field.name for field in fields(Cost))
COSTS = (*COUNTS, *FLOPS)
