"""Errors as OpenAI's clients expect them: a status and a JSON object. Their texts repeat nothing that was received."""

from __future__ import annotations

from typing import Any


class ServiceError(Exception):
    """A request that gets no answer.

    Args:
        status: of HTTP.
        message: for the client; a fixed text.
        code: short and stable, for programs.
        param: the field of the request that it is about.
        headers: of the response.
    """

    def __init__(
        self, status: int, message: str, code: str, param: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """The JSON object."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def bad_request(message: str, code: str, param: str | None = None) -> ServiceError:
    """Status 400."""
    return ServiceError(400, message, code, param)
