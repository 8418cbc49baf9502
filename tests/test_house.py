"""source files -> the rules of the house that a linter does not know"""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("aiprod_components", "deployments", "aiprod_client", "benchmarks", "k8s", "loadtests", "tests")
GENERATED = "_pb2"
SOURCES = {
    path.relative_to(ROOT): path.read_text(encoding="utf-8")
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*.py"))
    if GENERATED not in path.name
}
TREES = {path: ast.parse(source) for path, source in SOURCES.items()}
MAX_FILE, MAX_FUNCTION = 400, 60
VAGUE = {"util", "utils", "helper", "helpers", "common", "manager", "managers", "misc"}
LEFT_OVER = re.compile(r"TO(?:)DO|FIX(?:)ME")  # written so that this line is none


def test_a_file_is_under_400_lines() -> None:
    assert {str(path): size for path, source in SOURCES.items() if (size := len(source.splitlines())) >= MAX_FILE} == {}


def test_a_function_is_under_60_lines() -> None:
    assert {name: size for name, size in function_sizes() if size >= MAX_FUNCTION} == {}


def test_a_module_is_named_for_what_it_does() -> None:
    assert [str(path) for path in SOURCES if VAGUE & set(path.with_suffix("").parts)] == []


def test_a_module_begins_with_its_data_flow() -> None:
    assert [str(path) for path, tree in TREES.items() if tree.body and not ast.get_docstring(tree)] == []


def test_annotations_are_values() -> None:
    """Postponed ones make Serve hand `build` an unvalidated dict, and defeat jaxtyping."""
    imports = [(path, node) for path, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert [str(path) for path, node in imports if node.module == "__future__"] == []


def test_nothing_is_left_for_later() -> None:
    assert [str(path) for path, source in SOURCES.items() if LEFT_OVER.search(source)] == []


def test_the_notice_names_every_package_that_is_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    asked = [*project["dependencies"], *(package for extra, packages in optional.items() if extra != "dev" for package in packages)]
    names = {re.split(r"[\[<>=]", requirement)[0] for requirement in asked}
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert {name for name in names if not re.search(rf"^  {re.escape(name)}\b", notice, re.MULTILINE)} == set()


def test_what_a_page_links_to_is_there() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    links = [(page, target) for page in pages for target in re.findall(r"\]\(([^)#: ]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))]
    assert len(links) > 40
    assert [f"{page.name}: {target}" for page, target in links if not (page.parent / target).exists()] == []


def function_sizes() -> Iterator[tuple[str, int]]:
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path}:{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1
