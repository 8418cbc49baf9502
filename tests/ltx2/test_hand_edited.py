"""a folder that was edited by hand, or that cannot be read -> refused when the family is made, like one that is damaged"""

import json
from pathlib import Path
from typing import Any

import pytest

from aiprod_components.families import make_family
from tests.ltx2.conftest import FolderOf
from tests.ltx2.test_refusals import WEIGHTS, Harm, holding, refusal, says, told

INDEX = f"transformer/{WEIGHTS}.index.json"
FURTHER = "a" * 300  # than any file's name may be long


def indexed(places: Any, **more: Any) -> Harm:
    return holding(INDEX, json.dumps({"metadata": {}, "weight_map": places} | more))


def leading(name: str, to: str) -> Harm:
    def harm(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(to)

    return harm


# What is wrong -> how it comes about, and what is said; {at} is the folder.
HARMS: dict[str, tuple[Harm, str]] = {
    "a place that is a number": (indexed({"a": 5}), f"{{at}}/{INDEX} is damaged (a is in 5, which is no file beside it); fetch it again"),
    "a place that is a list": (indexed({"a": ["x"]}), f"{{at}}/{INDEX} is damaged (a is in ['x'], which is no file beside it)"),
    "a place elsewhere": (indexed({"a": f"../vae/{WEIGHTS}"}), f"{{at}}/{INDEX} is damaged (a is in '../vae/{WEIGHTS}', which is no file"),
    "no places": (indexed({}), f"{{at}}/{INDEX} is damaged (its weight_map is empty); fetch it again"),
    "an index without its sizes": (indexed({"a": "x"}, metadata=None), f"{{at}}/{INDEX} is damaged (it has no metadata); fetch it again"),
    "a text encoder without text": (
        told("text_encoder/config.json", text_config=None),
        "{at}/text_encoder/config.json is damaged (text_config is None, and not an object); fetch it again",
    ),
    "layers in words": (
        told("text_encoder/config.json", text_config={"num_hidden_layers": "2"}),
        "{at}/text_encoder/config.json is damaged (num_hidden_layers is '2', and not a whole number); fetch it again",
    ),
    "heads in words": (
        told("connectors/config.json", video_connector_num_attention_heads="4"),
        "{at}/connectors/config.json is damaged (video_connector_num_attention_heads is '4', and not a whole number)",
    ),
    "channels that are null": (
        told("vae/config.json", decoder_block_out_channels=None),
        "{at}/vae/config.json is damaged (decoder_block_out_channels is None, and not a list); fetch it again",
    ),
    "channels that are a number": (
        told("vae/config.json", decoder_block_out_channels=3),
        "{at}/vae/config.json is damaged (decoder_block_out_channels is 3, and not a list); fetch it again",
    ),
    **{
        f"{value!r} blocks": (
            told("transformer/config.json", num_layers=value),
            f"{{at}}/transformer/config.json is damaged (num_layers is {value!r}, and not a whole number); fetch it again",
        )
        for value in ("many", None, True, 2.0)
    },
    "JSON as deep as a well": (holding("vae/config.json", "[" * 100_000), "{at}/vae/config.json is damaged (.*); fetch it again"),
    "a byte order mark": (
        holding("vae/config.json", b"\xef\xbb\xbf{}"),
        "{at}/vae/config.json begins with a byte order mark, which the libraries that load it refuse; save it without one",
    ),
    **{
        f"{name} that cannot be reached": (
            leading(name, FURTHER),
            f"{{at}}/{name} cannot be read (File name too long); let the server's user",
        )
        for name in ("LICENSE", "README.md", "model_index.json", "transformer_full", "tokenizer/tokenizer.json", f"vae/{WEIGHTS}")
    },
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_folder_is_refused_for(harm: str, copy_of: FolderOf):
    folder = copy_of("2.3")
    do, said = HARMS[harm]
    do(folder)
    message = refusal(folder)
    assert says(message, said.format(at=folder)), message


@pytest.mark.parametrize("weights", ["a" * 5000, "\0x", "~/x", "", "/dev/null"], ids=["too long", "NUL", "a tilde", "nothing", "a device"])
def test_what_is_no_folder_is_refused(weights: str):
    assert "; " in refusal(Path(weights))


def test_a_byte_order_mark_in_what_is_read_here_alone_does_no_harm(copy_of: FolderOf):
    folder = copy_of("2.3")
    for name in ("model_index.json", "scheduler/scheduler_config.json"):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    assert make_family("ltx2", weights=str(folder)).title.startswith("LTX-2 2.3, dev")
