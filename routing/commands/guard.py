"""From an exception to one line and an exit code: 2 for bad input, 1 for a failure, 130 for Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from routing.errors import InputError, RoutingError


def guarded(command: Callable[[], Any]) -> int:
    """Run a command and return its exit code; every error a user can cause becomes one line on stderr."""
    try:
        command()
    except RoutingError as error:
        return _fail(str(error), error.exit_code)
    except click.ClickException as error:
        return _fail(error.format_message(), InputError.exit_code)
    except click.exceptions.Exit as error:
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", 130)
    except OSError as error:
        return _fail(f"{error.filename or 'file system'}: {error.strerror or error}", RoutingError.exit_code)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        advice = "lower training.batch_size, evaluation.batch_size or the size of data and model"
        return _fail(f"out of memory: {str(error).splitlines()[0] if str(error) else 'no more to be had'}; {advice}", 1)
    return 0


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether memory has run out; torch has an error class for this on a GPU, but none on the CPU."""
    torch_says = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or torch_says


def _fail(message: str, code: int) -> int:
    click.echo(f"routing: {' '.join(message.split())}", err=True)
    return code
