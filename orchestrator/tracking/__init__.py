"""MLflow tracking, which only the driver writes. The only package that imports mlflow."""

import os

# A sweep contacts only servers in its config: no MLflow telemetry. MLflow reads this at import.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
