"""docs/grpc.md -> what it shows, run"""

import re

import pytest

from deployments.api.grpc import GRPC_STATUS, RPCS
from tests.deployments.grpc_face.stand_in import FILE, StandInService
from tests.graph import ROOT

PAGE = (ROOT / "docs/grpc.md").read_text(encoding="utf-8")


def test_the_python_of_the_page_runs(target: str, service: StandInService, capsys: pytest.CaptureFixture[str]) -> None:
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block.replace("127.0.0.1:9000", target), {})
    first, second = service.videos
    assert capsys.readouterr().out.splitlines() == ["0", "50", "100", str(len(FILE)), f"{second} False"]
    assert service.videos[first]["seed"] == 7


def test_the_page_names_every_call_and_every_status() -> None:
    told = set(re.findall(r"`(\w+)`", PAGE))
    assert {rpc.name for rpc in RPCS} | {code.name for code in GRPC_STATUS.values()} <= told
