"""the table of alerts -> its two files beside this one"""

from pathlib import Path
from typing import Any

import yaml

from k8s.alerts import resource, rules

FOLDER = Path(__file__).parent


def files() -> dict[Path, str]:
    """What is to be in them."""
    return {FOLDER / "rules.yaml": _written(rules()), FOLDER / "prometheusrule.yaml": _written(resource())}


def _written(document: dict[str, Any]) -> str:
    return "# Written by `python -m k8s.alerts`.\n" + yaml.safe_dump(document, sort_keys=False, width=140)


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
