"""Finds the files that ship beside the code: `sql/` and `dagster.yaml`.

In a checkout they lie at the top level, in an installed wheel inside the package.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped_path(name: str) -> Path:
    """Return the path of a shipped file or folder, such as `sql/migrations`.

    Raises `FileNotFoundError` when neither a wheel nor a checkout holds it.
    """
    for folder in (_PACKAGE, _PACKAGE.parent):
        path = folder / name
        if path.exists():
            return path
    raise FileNotFoundError(f"{name} is missing from this installation; install user-sync-pipeline again.")


def named_query(name: str) -> str:
    """Return the text of `sql/queries/<name>.sql`."""
    return (shipped_path("sql/queries") / f"{name}.sql").read_text(encoding="utf-8")
