"""`aiprod convert`: a single file of LTX-2 -> a diffusers folder that can be served"""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from aiprod_client.exits import err, told
from aiprod_client.server import interruptible
from aiprod_components.errors import InvalidRequestError

COLUMNS = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())

Source = Annotated[Path, typer.Argument(help="The checkpoint, a .safetensors file.", show_default=False)]
Folder = Annotated[Path, typer.Argument(help="The folder to write, which must not be there yet.", show_default=False)]
Base = Annotated[Path | None, typer.Option("--from", help="A diffusers folder of LTX-2 2.0: what the file does not hold comes from there.")]
Variant = Annotated[str | None, typer.Option(help="What the file is: dev or distilled. [default: what its name says]")]
OfVersion = Annotated[str | None, typer.Option("--version", help="What the file is said to be: 2.0, 2.3 or 2.5. [default: what it is]")]


@told()
def convert(source: Source, folder: Folder, base: Base = None, variant: Variant = None, version: OfVersion = None) -> None:
    """Turn a single file of LTX-2 2.0 into a diffusers folder, with diffusers' own names for its weights."""
    if source.is_dir():
        raise InvalidRequestError(f"{source} is a folder, and this is for single files; serve a diffusers folder as it is", field="source")
    if not source.is_file():
        raise InvalidRequestError(f"{source} is not there; name a .safetensors file", field="source")
    if source.suffix != ".safetensors":
        raise InvalidRequestError(f"{source} is no .safetensors file; fetch the checkpoint as one", field="source")
    chosen = variant or _variant_in(source.stem)
    from aiprod_components.families.ltx2_convert import convert as write
    from aiprod_components.families.ltx2_convert import version_of_names
    from aiprod_components.families.ltx2_files import check_tensors

    found = version_of_names(list(check_tensors(source)))
    if None not in (version, found) and version != found:
        raise InvalidRequestError(f"{source} is of LTX-2 {found}, not {version}; leave out --version", field="version")
    with interruptible(), Progress(*COLUMNS, console=err) as bars:
        bar = bars.add_task("reading", total=None)

        def show(part: str, done: int, total: int) -> None:
            bars.update(bar, description=part, completed=done, total=total)

        write(source, folder, base=base, variant=chosen, watch=show)
    err.print(f"{folder}: LTX-2 {found}, {chosen}; serve it with args: {{name: ltx2, weights: {folder}}}", soft_wrap=True, markup=False)
    if chosen == "dev" and not (place := folder / "loras" / "distilled.safetensors").is_file():
        err.print(f"its refiner needs the distilled LoRA at {place}", soft_wrap=True, markup=False)


def _variant_in(name: str) -> str:
    """Raises InvalidRequestError where a file's name does not say it."""
    said = [variant for variant in ("dev", "distilled") if variant in name.lower()]
    if len(said) != 1:
        raise InvalidRequestError(f"whether {name} is distilled its name does not say; add --variant dev or distilled", field="variant")
    return said[0]
