"""docs/api.md is what the server says of itself"""

from pathlib import Path

from deployments.api.reference import describe_miniature, make_reference

PAGE = Path(__file__).parents[2] / "docs/api.md"


def test_the_page_is_written_from_the_document() -> None:
    assert PAGE.read_text(encoding="utf-8") == make_reference(describe_miniature()), (
        "run: python -m deployments.api.reference > docs/api.md"
    )
