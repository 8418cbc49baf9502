"""an application -> the playground's files, as a browser gets them"""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from deployments.playground import STATIC, mount


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    mount(app)
    return TestClient(app)


def test_every_file_comes_with_a_type_a_tag_and_the_policy(client: TestClient) -> None:
    names = ["", *(f"playground/{path.relative_to(STATIC).as_posix()}" for path in STATIC.rglob("*") if path.is_file())]
    for name in names:
        answer = client.get(f"/{name}")
        assert answer.status_code == 200, name
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["etag"] and answer.headers["content-type"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert client.get("/playground/app.js").headers["content-type"].startswith("text/javascript")


def test_the_policy_allows_nothing_inline_and_nobody_else(client: TestClient) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert "unsafe" not in policy and "http" not in policy and "frame-ancestors 'none'" in policy


def test_the_page_has_no_inline_script_or_style_and_names_no_other_server() -> None:
    own = [path for path in STATIC.rglob("*") if path.suffix in (".html", ".js", ".css") and "vendor" not in path.parts]
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    assert "<style" not in page and " style=" not in page and "<script>" not in page
    said = {path.name: path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "") for path in own}
    assert [name for name, text in said.items() if "https://" in text or "http://" in text] == []


def test_what_the_browser_has_is_not_sent_again(client: TestClient) -> None:
    tag = client.get("/playground/app.js").headers["etag"]
    again = client.get("/playground/app.js", headers={"if-none-match": f'W/"other", {tag}'})
    assert again.status_code == 304 and again.content == b"" and again.headers["etag"] == tag
    assert client.get("/playground/app.js", headers={"if-none-match": "*"}).status_code == 304
    assert client.get("/playground/app.js", headers={"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize("path", ["/playground/", "/playground/none.js", "/playground/../__init__.py", "/playground/%2e%2e/__init__.py"])
def test_nothing_but_the_files_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_a_bucket_may_be_asked_for_videos_where_it_is_named() -> None:
    app = FastAPI()
    mount(app, video_origins=["https://bucket.example"])
    assert "connect-src 'self' https://bucket.example;" in TestClient(app).get("/").headers["content-security-policy"]


def test_other_peoples_code_has_its_licence_beside_it() -> None:
    assert {path.stem for path in (STATIC / "vendor").glob("*.LICENSE")} == {"preact", "htm"}
