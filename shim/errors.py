"""Errors that an RPC answers with, and the gRPC codes they travel as (https://grpc.io/docs/guides/status-codes/)."""

from __future__ import annotations


class Code:
    """gRPC status codes."""

    OK = 0
    CANCELED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class RpcError(Exception):
    """A failure whose code and message the caller is to see."""

    code = Code.UNKNOWN

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class InvalidArgumentError(RpcError):
    code = Code.INVALID_ARGUMENT


class NotFoundError(RpcError):
    code = Code.NOT_FOUND


class AlreadyExistsError(RpcError):
    code = Code.ALREADY_EXISTS


class FailedPreconditionError(RpcError):
    code = Code.FAILED_PRECONDITION


class UnimplementedError(RpcError):
    code = Code.UNIMPLEMENTED


class UnavailableError(RpcError):
    code = Code.UNAVAILABLE
