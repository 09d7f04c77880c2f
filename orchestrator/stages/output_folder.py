"""The output folder of a job, resolved to a folder that outlives a submitted Ray job."""

import os
from pathlib import Path

HOME_VARIABLE = "PRM_ORCHESTRATOR_HOME"
_UPLOADED = "runtime_resources"  # Ray's temporary copies of a submitted working directory


def permanent_home() -> Path:
    """Return $PRM_ORCHESTRATOR_HOME or ~/prm-orchestrator, where submitted jobs write."""
    return Path(os.environ.get(HOME_VARIABLE, "~/prm-orchestrator")).expanduser()


def permanent_output_dir(output_dir: str | None, name: str, working_dir: Path) -> tuple[str, str]:
    """Return the absolute output folder or URI, and a sentence if it was moved ("" if not).

    A relative folder is relative to ``working_dir``. In a submitted job that is a temporary copy
    which Ray deletes; the folder is then relative to $PRM_ORCHESTRATOR_HOME or ~/prm-orchestrator.
    """
    wanted = output_dir or f"runs/{name}"
    if "://" in wanted or Path(wanted).expanduser().is_absolute():
        return str(Path(wanted).expanduser()) if "://" not in wanted else wanted, ""
    if _UPLOADED not in working_dir.parts:
        return str(working_dir / wanted), ""
    path = str(permanent_home() / wanted)
    return path, (
        f"output_dir {wanted} is relative, and this job runs in a temporary copy of the working"
        f" directory: the output goes to {path} (set ${HOME_VARIABLE} or an absolute output_dir)"
    )
