"""a folder in the place of the operator's weights"""

from pathlib import Path

import pytest

from tests.ltx2.folders import make_folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LTX-2 2.3, to be read."""
    return make_folder(tmp_path_factory.mktemp("ltx2") / "2.3", "2.3")
