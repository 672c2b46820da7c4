"""Receives the images of a request in memory: no byte of them touches the disk.

Starlette's own parser moves files above 1 MB to temporary files. Here it never does: a counter stops larger requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from melanoma_dist.app.server.limits import Share
from melanoma_dist.app.server.problems import Problem
from melanoma_dist.config.metadata import FIELDS
from melanoma_dist.config.serve import ServeConfig
from melanoma_dist.data.metadata import parse_code, rule_of
from melanoma_dist.errors import ConfigError

_MEGABYTE = 1_000_000
logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it would log a line per malformed form
_MAX_FIELDS = 16  # fields that are no files, beyond age, sex and site of each image
_MAX_NAME = 255  # characters of a file's name that come back in the answer
_FORM = "multipart/form-data"


@dataclass(frozen=True)
class Upload:
    """A file of a request."""

    name: str
    """As the client names it; it serves the answer alone."""
    data: bytes
    about: Mapping[str, str] = field(default_factory=dict)
    """What the form says of the patient: `age`, `sex`, `site`."""


class _Parser(MultiPartParser):
    spool_max_size = 2**62  # bytes of a file in memory: never move it to the disk
    complete = False

    def on_end(self) -> None:
        """Note that the last boundary arrived. Without it the last file may be cut, or missing."""
        self.complete = True

    def close(self) -> None:
        """Free all files, also those that never ended."""
        for file in self._files_to_close_on_error:
            file.close()


async def receive(request: Request, settings: ServeConfig, share: Share) -> list[Upload]:
    """The files of a request, at least one.

    Raises Problem for another content type, a malformed body, no file, too many or too large ones, and a slow client.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise Problem(415, "no_form", f"Send images as files of a form ({_FORM}): curl -F images=@lesion.jpg URL.")
    limit = settings.max_megabytes * _MEGABYTE
    _check_announced(request, limit)
    parser = _Parser(request.headers, _counted(request, limit, share), max_files=settings.max_files,
                     max_fields=_MAX_FIELDS + len(FIELDS) * settings.max_files, max_part_size=1024)  # fmt: skip
    try:
        return await _read(parser, settings)
    finally:
        parser.close()


async def _read(parser: _Parser, settings: ServeConfig) -> list[Upload]:
    try:
        async with asyncio.timeout(settings.timeout):
            form = await parser.parse()
    except TimeoutError:
        detail = f"The request did not arrive within {settings.timeout:g} s."
        raise Problem(408, "slow_request", detail, values={"seconds": settings.timeout}) from None
    except MultiPartException as error:
        detail = f"The form cannot be read: {error.message}"
        raise Problem(400, "malformed_form", detail, values={"reason": error.message}) from None
    except ClientDisconnect:
        detail = "The client closed the connection before the request was complete."
        raise Problem(400, "cut_request", detail) from None
    except (ValueError, LookupError) as error:  # names and boundaries that are no text
        reason = type(error).__name__
        raise Problem(
            400, "malformed_form", f"The form cannot be read ({reason}).", values={"reason": reason}
        ) from None
    if not parser.complete:
        raise Problem(400, "cut_form", "The form ends before its last boundary.")
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if not files:
        raise Problem(400, "no_file", "The form holds no file: curl -F images=@lesion.jpg URL.")
    patients = _patients(form, len(files))
    return [
        Upload((file.filename or "")[:_MAX_NAME], await file.read(), about)
        for file, about in zip(files, patients, strict=True)
    ]


def _patients(form: FormData, count: int) -> list[dict[str, str]]:
    """What the form says of the patient of each file: a field that stands once is about all of them."""
    patients: list[dict[str, str]] = [{} for _ in range(count)]
    for name in FIELDS:
        values = [value for value in form.getlist(name) if isinstance(value, str)]
        if len(values) not in (0, 1, count):
            detail = f"{name} stands {len(values)} times for {count} files. Send it once, or once for each file."
            raise Problem(400, "metadata_count", detail, values={"field": name, "values": len(values), "files": count})
        for about, value in zip(patients, values if len(values) == count else values * count, strict=False):
            about[name] = value
    return patients


def check_patients(uploads: Sequence[Upload], fields: tuple[str, ...]) -> None:
    """Raise Problem for a value that a field cannot have, and for one that a model without the field would ignore."""
    for upload in uploads:
        for name, value in upload.about.items():
            if name not in fields:
                detail = f"This model takes no {name}. /v1/model lists what it takes beside an image."
                raise Problem(400, "no_metadata", detail, values={"field": name})
            try:
                parse_code(name, value)
            except ConfigError:
                rule = rule_of(name)
                raise Problem(400, "metadata", f"{name}: {rule}.", values={"field": name, "rule": rule}) from None


def _check_announced(request: Request, limit: int) -> None:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > limit:
        raise _too_large(limit)


async def _counted(request: Request, limit: int, share: Share) -> AsyncGenerator[bytes, None]:
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit:
            raise _too_large(limit)
        share.hold_bytes(len(chunk))
        yield chunk


def _too_large(limit: int) -> Problem:
    megabytes = limit // _MEGABYTE
    detail = f"The request is larger than {megabytes} MB."
    return Problem(413, "large_request", detail, {"Connection": "close"}, {"megabytes": megabytes})
