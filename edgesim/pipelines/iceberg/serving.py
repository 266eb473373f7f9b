"""Answers of the Iceberg process: each request by pyiceberg, each refusal as one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from pydantic import ValidationError

from edgesim.pipelines.iceberg import tables, wire
from edgesim.pipelines.process_limits import ProcessLimits, end_for_memory


def _answer(request: wire.IcebergFrame) -> wire.IcebergFrame:
    match request:
        case wire.NewTable():
            return wire.Metadata(tables.new_table(request))
        case wire.ClientTable():
            return wire.Metadata(tables.client_table(request))
        case wire.Commit():
            return wire.Metadata(tables.commit(request))
        case wire.DescribeTable():
            return wire.TableColumns(tables.describe(request))
        case wire.AppendFile():
            return tables.append_file(request)
    raise ValueError(f"not a request: {type(request).__name__}")


def _answer_or_refusal(request: wire.IcebergFrame) -> wire.IcebergFrame:
    try:
        return _answer(request)
    except tables.RefusedTableError as error:
        return wire.TableRefused(error.kind, _one_line(error))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        return wire.TableRefused("bad", f"{place}: {first['msg']}" if place else first["msg"])
    except BaseException as error:  # noqa: BLE001 (a panic of pydantic is none of Exception)
        if _is_of_memory(error):
            end_for_memory()
        return wire.TableRefused("bad", _one_line(error))


def _is_of_memory(error: BaseException) -> bool:
    """Return True for MemoryError, and for a panic whose cause it is."""
    is_panic = not isinstance(error, Exception)
    return isinstance(error, MemoryError) or (is_panic and "MemoryError" in str(error))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def serve(
    pipe: BinaryIO, send: Callable[[bytes], None], limits: ProcessLimits, seconds: float
) -> None:
    """Serve requests until the socket closes, each within ``seconds`` of CPU time."""
    send(wire.FRAMES.encode(wire.Ready()))
    while True:
        try:
            request = wire.FRAMES.read(pipe)
        except EOFError:
            return
        with limits.of_a_request(seconds):
            answer = wire.FRAMES.encode(_answer_or_refusal(request))
        send(answer)
