"""MLflow tracking, written by the driver alone. The only package that imports mlflow."""

import os

# A sweep calls out to nobody that its config does not name. Read by mlflow at import.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
