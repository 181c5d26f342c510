"""What the simulator refuses, in the form in which Salesforce says so."""

from __future__ import annotations


class ApiError(Exception):
    """An answer of the REST interface that is a failure: HTTP status, error code and text."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message

    @property
    def body(self) -> list[dict[str, str]]:
        """The JSON body, a list with one entry."""
        return [{"message": self.message, "errorCode": self.code}]


class QueryError(ApiError):
    """A refusal of a SOQL statement, which shows the place: `column` counts from 1."""

    def __init__(self, code: str, message: str, statement: str, column: int) -> None:
        pointer = f"\n{statement}\n{' ' * (column - 1)}^\nERROR at Row:1:Column:{column}\n"
        super().__init__(400, code, pointer + message)
