"""MLflow tracking, written by the driver alone. The only package that imports mlflow."""

import os

# A sweep contacts no server that its config does not name. MLflow reads this at import.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
