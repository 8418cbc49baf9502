"""a family whose folder is damaged, beside one that is whole -> an API that serves the one and says what is wrong with the other"""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from aiprod_components.errors import CheckpointError, UnavailableError, UnknownModelError
from aiprod_components.families import FAMILIES, make_family
from aiprod_components.families.base import Family
from deployments.api.body import Body
from deployments.api.catalogue import list_models
from deployments.api.wire import Wire
from deployments.jobs.records import COMPLETED
from deployments.offered import make_offer, told
from deployments.settings import ApiArgs, FamilyArgs
from tests.deployments.stages_here import Stages, ask, ended, working


@pytest.fixture
def damaged(tmp_path: Path) -> dict[str, Any]:
    """The args of a family whose folder lacks its index."""
    (tmp_path / "secret" / "LTX-2.3").mkdir(parents=True)
    return {"name": "ltx2", "weights": str(tmp_path / "secret" / "LTX-2.3")}


def args_of(*families: dict[str, Any], data: Path) -> ApiArgs:
    return ApiArgs.model_validate({"families": families, "data": str(data)})


def wire_of(args: ApiArgs) -> Wire:
    offer = make_offer(args)
    return Wire(offer.families, faults=offer.faults, default=offer.default)


def asking(**fields: Any) -> Body:
    return Body({"prompt": "a red ball", **fields}, is_json=True)


def test_a_damaged_family_is_told_of_without_the_way_to_its_folder(damaged: dict[str, Any], tmp_path: Path) -> None:
    offer = make_offer(args_of({"name": "miniature"}, damaged, data=tmp_path))
    assert offer.names == ("miniature", "ltx2") and set(offer.families) == {"miniature"}
    assert offer.faults["ltx2"].startswith("LTX-2.3 has no model_index.json") and "name the folder that holds it" in offer.faults["ltx2"]


@pytest.mark.parametrize("spelling", ["{at}", "{at}/", "{at}//", "{up}//./LTX-2.3", "./LTX-2.3"])
def test_however_the_way_is_written_it_is_not_told(spelling: str, damaged: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = Path(damaged["weights"])
    monkeypatch.chdir(folder.parent)
    args = damaged | {"weights": spelling.format(at=folder, up=folder.parent)}
    assert make_offer(args_of({"name": "miniature"}, args, data=tmp_path)).faults["ltx2"].startswith("LTX-2.3 has no model_index.json")


def test_the_ways_to_its_other_folders_are_not_told_either() -> None:
    family = FamilyArgs(name="ltx2", weights="/", loras="/secret/loras//", prompt_enhancer="/secret/gemma")
    assert told("/secret/loras/a.safetensors and /secret/gemma/config.json", family) == "loras/a.safetensors and gemma/config.json"


def test_whatever_a_folder_brings_about_takes_down_nobody_else(
    damaged: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(**_options: Any) -> Family:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setitem(FAMILIES, "ltx2", break_down)
    offer = make_offer(args_of({"name": "miniature"}, damaged, data=tmp_path))
    assert set(offer.families) == {"miniature"}
    assert offer.faults["ltx2"] == (
        "model ltx2 cannot be made (ZeroDivisionError: division by zero); see the server's log, and mend its args or folder"
    )
    with pytest.raises(CheckpointError, match="cannot be made"):
        make_offer(args_of(damaged, data=tmp_path))


def test_models_lists_it_apart_with_the_reason(damaged: dict[str, Any], tmp_path: Path) -> None:
    models = list_models(wire_of(args_of({"name": "miniature"}, damaged, data=tmp_path)))
    assert [model["id"] for model in models["data"]] == ["miniature"]
    (gone,) = models["unavailable"]
    assert gone["id"] == "ltx2" and "model_index.json" in gone["reason"]
    assert list_models(Wire({"miniature": make_family("miniature")}))["unavailable"] == []


def test_a_request_for_it_is_to_be_tried_again_and_one_for_another_is_read(damaged: dict[str, Any], tmp_path: Path) -> None:
    wire = wire_of(args_of({"name": "miniature"}, damaged, data=tmp_path))
    with pytest.raises(UnavailableError, match=r"model ltx2 cannot be served now: LTX-2\.3 has no model_index\.json"):
        wire.read(asking(model="ltx2"))
    with pytest.raises(UnknownModelError, match="there is miniature"):
        wire.read(asking(model="sora-2"))
    assert wire.read(asking()).family.name == "miniature"


def test_where_it_is_the_default_no_other_takes_its_place(damaged: dict[str, Any], tmp_path: Path) -> None:
    wire = wire_of(args_of(damaged, {"name": "miniature"}, data=tmp_path))
    with pytest.raises(UnavailableError):
        wire.read(asking())
    assert wire.read(asking(model="miniature")).family.name == "miniature"


def test_with_nothing_to_serve_there_is_no_api(damaged: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model_index\.json"):
        make_offer(args_of(damaged, data=tmp_path))


@pytest.mark.filterwarnings("ignore:coroutine 'Dispatcher.__del__':RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_dispatcher_works_on_the_jobs_of_the_others(damaged: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> Any:
        async with working(args_of({"name": "miniature"}, damaged, data=tmp_path), Stages(), monkeypatch) as dispatcher:
            return await ended(dispatcher, ask(dispatcher, 1))

    assert asyncio.run(run()).status == COMPLETED
