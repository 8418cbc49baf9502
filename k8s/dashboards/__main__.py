"""the dashboards -> a JSON file for each beside this one"""

import json
from pathlib import Path

from k8s.dashboards import DASHBOARDS, model

FOLDER = Path(__file__).parent


def files() -> dict[Path, str]:
    """What is to be in them."""
    return {FOLDER / f"{each.uid}.json": json.dumps(model(each), indent=2) + "\n" for each in DASHBOARDS}


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
