"""the playground's story once more, told to the real graph: nothing in it is a stand-in's"""

import pytest

from tests.graph import PATIENCE, Graph
from tests.playground.test_playground import (
    test_a_prompt_becomes_a_video_whose_making_is_seen,
    test_a_video_is_cancelled_and_deleted_by_keyboard_alone,
    test_a_video_is_extended,
    test_a_video_is_remixed_and_its_settings_are_used_again,
    test_axe_finds_nothing_on_a_phone_during_and_after_a_video,
    test_what_was_made_is_counted_and_the_draft_and_the_video_are_still_there_afterwards,
)

__all__ = [
    "test_a_prompt_becomes_a_video_whose_making_is_seen",
    "test_a_video_is_cancelled_and_deleted_by_keyboard_alone",
    "test_a_video_is_extended",
    "test_a_video_is_remixed_and_its_settings_are_used_again",
    "test_axe_finds_nothing_on_a_phone_during_and_after_a_video",
    "test_what_was_made_is_counted_and_the_draft_and_the_video_are_still_there_afterwards",
]

pytestmark = pytest.mark.timeout(PATIENCE)


@pytest.fixture(scope="module")
def server_url(graph: Graph) -> str:
    return graph.url
