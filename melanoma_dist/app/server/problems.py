"""Errors of requests, in the format of RFC 9457 (application/problem+json)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse


class Problem(Exception):
    """A request that is refused or fails. ``detail`` is for the client."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)
        self.status, self.detail, self.headers = status, detail, headers

    def response(self) -> JSONResponse:
        """The answer to the client."""
        content = {"title": HTTPStatus(self.status).phrase, "status": self.status, "detail": self.detail}
        return JSONResponse(content, self.status, self.headers, "application/problem+json")


async def answer_problem(request: Request, error: Exception) -> JSONResponse:
    """Answer a request that raised Problem, or an error of the framework with a status, or anything else."""
    if not isinstance(error, Problem):
        status = getattr(error, "status_code", 500)
        error = Problem(status, str(getattr(error, "detail", _UNEXPECTED)), getattr(error, "headers", None))
    request.state.problem = error.detail
    return error.response()


async def answer_unexpected(request: Request, error: Exception) -> JSONResponse:
    """Answer a request that failed by a mistake of the program. The server logs its trace; the client sees none."""
    return await answer_problem(request, Problem(500, _UNEXPECTED))


_UNEXPECTED = "The server failed. Its log has the reason."
