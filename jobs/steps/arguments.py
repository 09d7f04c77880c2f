"""Arguments that the entry points have in common, by the names that they have there."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Argument(help="policy, orm, reference or a variant's name")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="fields of the config, as key.sub=value")
]
ConfigFile = Annotated[
    Path | None, typer.Option(help="a YAML file; without it, the embedded help desk")
]
DryRun = Annotated[bool, typer.Option(help="print the plan and stop")]
Force = Annotated[list[str] | None, typer.Option(help="do this stage, and what follows, again")]
