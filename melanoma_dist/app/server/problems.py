"""Errors of requests, in the format of RFC 9457 (application/problem+json)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse


class Problem(Exception):
    """A request that is refused or fails. ``detail`` is for the client; code and values let it word that itself."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        values: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(status, code, detail, headers, values)
        self.status, self.code, self.detail, self.headers = status, code, detail, headers
        self.values = dict(values or {})

    def response(self) -> JSONResponse:
        """The answer to the client."""
        content = {
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "values": self.values,
        }
        return JSONResponse(content, self.status, self.headers, "application/problem+json")


async def answer_problem(request: Request, error: Exception) -> JSONResponse:
    """Answer a request that raised Problem, or an error of the framework with a status, or anything else."""
    if not isinstance(error, Problem):
        status = getattr(error, "status_code", 500)
        code = HTTPStatus(status).name.lower()
        error = Problem(status, code, str(getattr(error, "detail", _UNEXPECTED)), getattr(error, "headers", None))
    request.state.problem = error.detail
    return error.response()


async def answer_unexpected(request: Request, error: Exception) -> JSONResponse:
    """Answer a request that failed by a mistake of the program. The server logs its trace; the client sees none."""
    return await answer_problem(request, Problem(500, "internal_server_error", _UNEXPECTED))


_UNEXPECTED = "The server failed. Its log has the reason."
