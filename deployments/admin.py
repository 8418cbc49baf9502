"""serve_config.yaml -> its database, for the operator's commands"""

from pathlib import Path

from deployments.settings import ApiArgs, check_config
from deployments.storage import Storage, open_storage


def open_admin(config: Path) -> Storage:
    """What the API of this config keeps. Raises ConfigError."""
    applications = check_config(config)["applications"]
    (args,) = [application["args"] for application in applications if application["import_path"] == "deployments.graph:api"]
    return open_storage(ApiArgs.model_validate(args))
