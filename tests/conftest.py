"""In tests, shapes and types are checked at every call of the modules that state them; in production that costs nothing."""

from jaxtyping import install_import_hook

CHECKED = ("values", "diffusion", "kernels", "media", "models", "stages", "watermarks")

# Before anything imports them: a module that is loaded already stays unchecked.
install_import_hook([f"aiprod_components.{name}" for name in CHECKED], "beartype.beartype")

from tests.graph import graph  # noqa: E402 - every test that needs the cluster shares this one

__all__ = ["graph"]
