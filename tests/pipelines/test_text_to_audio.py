"""a prompt, a length -> the plan of a sound alone, and what of a video's fields it refuses"""

from dataclasses import replace
from typing import Any

import pytest

from aiprod_components.calls import Guidance
from aiprod_components.errors import InvalidRequestError
from aiprod_components.pipelines import PIPELINES, parse_request
from aiprod_components.pipelines.derived import extend_request, remix_request
from aiprod_components.plan import Plan, cost_of
from tests.pipelines.test_plans import GOLDEN, SOUNDING, calls_of, line, plan_of

GUIDED_SOUND = replace(
    SOUNDING, sampling=replace(SOUNDING.sampling, audio_guidance=Guidance(7.0, 0.7, 1.0, (2,), modality_scale=3.0), draft_shift=2.05)
)


def sound_plan(**record: Any) -> Plan:
    return plan_of(GUIDED_SOUND, pipeline="text_to_audio", **record)


def test_a_sound_alone_is_guided_as_the_family_guides_sound_and_costs_what_its_audio_latents_do():
    calls, costs = calls_of(sound_plan(num_frames=30)), [cost_of(sound_plan(num_frames=frames)) for frames in (30, 60)]
    assert calls["draft"].sampling.guidance == Guidance(7.0, 0.7, 1.0, (2,)) and calls["draft"].sampling.audio_guidance == Guidance()
    assert calls["draft"].work(SOUNDING.grid).tokens == calls["sound"].work(SOUNDING.grid).tokens == 47
    assert costs[0] < costs[1] < 2.1 * costs[0] < cost_of(plan_of(SOUNDING, num_frames=29)) and calls["sound"].container == "m4a"
    plain = calls_of(sound_plan(guidance_scale=1, skip_guidance=None))
    assert plain["draft"].sampling.guidance == Guidance() and plain["prompt"].negative_prompt is None
    enhanced = sound_plan(num_frames=SOUNDING.chaining.window + 30)
    assert line(enhanced) == GOLDEN["text_to_audio"], "however long it is"


@pytest.mark.parametrize(
    ("record", "field", "way_out"),
    [
        *(({field: None}, field, "not a field of this pipeline; the fields are") for field in sorted(PIPELINES["text_to_audio"].idle)),
        ({"upscale": 2}, "upscale", "not a field of this pipeline"),
        ({"output_format": "mp4"}, "output_format", "one of m4a, wav"),
        ({"num_frames": 1, "frame_rate": 120}, "num_frames", "0.04 s at least"),
        ({"num_frames": 10_000}, "num_frames", "1 to 241"),
        ({"guidance_scale": 1, "skip_guidance": None, "negative_prompt": "hum"}, "negative_prompt", "guidance_scale is 1"),
        ({"prompt": " "}, "prompt", "says nothing"),
    ],
)
def test_of_a_sound_alone_what_would_have_no_effect_is_refused(record: dict[str, Any], field: str, way_out: str):
    with pytest.raises(InvalidRequestError) as caught:
        sound_plan(**record)
    assert caught.value.field == field
    assert way_out in caught.value.message


def test_a_sound_is_made_anew_with_other_words_and_is_not_carried_on():
    request = parse_request({"prompt": "rain", "pipeline": "text_to_audio", "seed": 5}, family=SOUNDING)
    other = remix_request(request, prompt="thunder")
    assert (other.pipeline, other.prompt, other.seed) == ("text_to_audio", "thunder", 5)
    with pytest.raises(InvalidRequestError, match="a sound alone is not carried on; ask for a longer one"):
        extend_request(request, prompt="thunder", num_frames=24, family=SOUNDING)


def test_a_family_without_sound_says_so_and_a_container_of_sound_names_its_pipeline():
    with pytest.raises(InvalidRequestError, match="for families with sound, and miniature has none; name another model"):
        plan_of(pipeline="text_to_audio")
    with pytest.raises(InvalidRequestError, match="m4a and wav are made by pipeline text_to_audio"):
        plan_of(SOUNDING, output_format="wav")
