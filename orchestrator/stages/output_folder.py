"""Where a sweep's output lands: the config's folder, resolved to a place that lasts."""

import os
from pathlib import Path

HOME_VARIABLE = "PRM_ORCHESTRATOR_HOME"
_UPLOADED = "runtime_resources"  # Ray's temporary copies of a submitted working directory


def lasting_home() -> Path:
    """The folder that no job's end deletes: $PRM_ORCHESTRATOR_HOME, or ~/prm-orchestrator."""
    return Path(os.environ.get(HOME_VARIABLE, "~/prm-orchestrator")).expanduser()


def lasting_output_dir(output_dir: str | None, name: str, working_dir: Path) -> tuple[str, str]:
    """The absolute output folder or URI, and a sentence when it was moved (else an empty one).

    A relative folder counts from ``working_dir``. Inside a submitted job that is a temporary copy,
    which Ray deletes: the folder then counts from $PRM_ORCHESTRATOR_HOME, or
    ~/prm-orchestrator.
    """
    wanted = output_dir or f"runs/{name}"
    if "://" in wanted or Path(wanted).expanduser().is_absolute():
        return str(Path(wanted).expanduser()) if "://" not in wanted else wanted, ""
    if _UPLOADED not in working_dir.parts:
        return str(working_dir / wanted), ""
    place = str(lasting_home() / wanted)
    return place, (
        f"output_dir {wanted} is relative, and this job runs in a temporary copy of the working"
        f" directory: it goes to {place} (set ${HOME_VARIABLE} or an absolute output_dir)"
    )
