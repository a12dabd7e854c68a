"""The list of settings at the end of a command's help."""

from __future__ import annotations

from process.settings import variable
from serving.settings import ServingSettings

PROCESS = ("log_", "metrics_")
GRAPH = ("edge_weight", "type_weights", "half_life_days", "retention_days")
TRAINING = ("model", "model_file", "loss", "epochs", "device")


def settings_help(*names: str) -> str:
    """Markdown list of the named fields, `x_` for all that begin so; of all if none is named.

    Raises:
        ValueError: a name is no setting's.
    """
    for name in names:
        if not any(
            field == name or field.startswith(name) for field in ServingSettings.model_fields
        ):
            raise ValueError(f"no setting is named {name}")
    groups = tuple(name for name in names if name.endswith("_"))
    lines = ["Settings (environment variables):\n"]
    for name, field in ServingSettings.model_fields.items():
        if not names or name in names or name.startswith(groups):
            default = "unset" if field.default is None else field.default
            lines.append(f"- {variable(ServingSettings, name)} ({default}): {field.description}")
    return "\n".join(lines)
