"""whatever a command ends in -> data on stdout, one line on stderr, an exit code"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from aiprod_client.connecting import DEFAULT_SERVER
from aiprod_client.errors import AiprodClientError
from aiprod_client.server import ServerError
from aiprod_components.errors import AiprodError, InvalidRequestError

BAD_INPUT, FAILED = 2, 1

err = Console(stderr=True, highlight=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
ServerUrl = Annotated[str | None, typer.Option("--server", help=f"Whom to ask. [default: $AIPROD_SERVER, or {DEFAULT_SERVER}]")]


@contextmanager
def told() -> Iterator[None]:
    """Whatever goes wrong is one line on stderr and an exit code: 2 if asking for something else would help."""
    try:
        yield
    except InvalidRequestError as error:
        _fail(error.message, code=BAD_INPUT)
    except AiprodClientError as error:
        traced = f" (request {error.request_id})" if error.request_id and (error.status or 0) >= 500 else ""
        _fail(error.message + traced, code=BAD_INPUT if error.is_bad_input else FAILED)
    except AiprodError as error:
        _fail(error.message, code=FAILED)
    except (ServerError, OSError, ImportError, RuntimeError) as error:
        _fail(str(error), code=FAILED)


def _fail(message: str, *, code: int) -> NoReturn:
    typer.echo(f"aiprod: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)


def print_json(record: Any) -> None:
    typer.echo(json.dumps(record, indent=2, ensure_ascii=False))


def group(name: str, *, help: str) -> typer.Typer:
    """A command, or a name that has commands below it."""
    return typer.Typer(
        name=name, help=help, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )
