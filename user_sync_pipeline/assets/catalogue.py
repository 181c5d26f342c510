"""What Dagster's catalogue tells of the assets: their sources and columns, where each column comes from, and owners.

What belongs here: what is known without a run. What does not: the figures of a run (`metadata.py`).
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import dagster as dg

import user_sync_pipeline
from user_sync_pipeline.core.salesforce.fields import CUSTOM_FIELDS_COLUMN, USER_FIELDS, Kind, UserField

GROUP = "user_sync"
IN_EDITOR = "editor"
HOLDS_PEOPLE = {"domain": "identity", "personal_data": "yes"}
HOLDS_IDS = {"domain": "identity", "personal_data": "ids-only"}

# Dagster's own names.
TABLE_NAME, CODE_REFERENCES = "dagster/table_name", "dagster/code_references"
COLUMN_SCHEMA, COLUMN_LINEAGE = "dagster/column_schema", "dagster/column_lineage"

SALESFORCE_USER = dg.AssetKey(["salesforce", "User"])
AUTH_USERS = dg.AssetKey(["supabase", "auth_users"])
USER_PROFILES = dg.AssetKey(["supabase", "user_profiles"])

_POSTGRES_TYPES = {Kind.BOOLEAN: "boolean", Kind.TIMESTAMP: "timestamptz", Kind.ADDRESS: "jsonb"}
_SALESFORCE_TYPES = {Kind.TEXT: "string", Kind.TIMESTAMP: "datetime"}


def column(name: str, type_: str, description: str, *, nullable: bool = False) -> dg.TableColumn:
    """Return a column as the catalogue shows it."""
    constraints = dg.TableColumnConstraints(nullable=nullable)
    return dg.TableColumn(name, type=type_, description=description, constraints=constraints)


def users_column_schema(*own_columns: dg.TableColumn, required: Sequence[str]) -> dg.TableSchema:
    """Return the schema of a table of users: the catalogue's fields, then the table's own columns."""
    fields = [
        column(
            field.column,
            _POSTGRES_TYPES.get(field.kind, "text"),
            f"Salesforce `User.{field.name}`",
            nullable=field.column not in required,
        )
        for field in USER_FIELDS
    ]
    custom_fields = column(
        CUSTOM_FIELDS_COLUMN, "jsonb", "The fields named in `SALESFORCE_EXTRA_FIELDS`", nullable=True
    )
    return dg.TableSchema([*fields, custom_fields, *own_columns])


def column_lineage(sources: Mapping[str, Iterable[tuple[dg.AssetKey, str]]]) -> dg.TableColumnLineage:
    """Return where columns come from, each from the given columns of other assets."""
    return dg.TableColumnLineage(
        {name: [dg.TableColumnDep(asset, column) for asset, column in origins] for name, origins in sources.items()}
    )


def _salesforce_type(field: UserField) -> str:
    type_ = _SALESFORCE_TYPES.get(field.kind, field.kind.value)
    return f"{type_}({field.max_length})" if field.max_length else type_


# What others keep: read, and never materialized, by this project.
SOURCES = [
    dg.AssetSpec(
        SALESFORCE_USER,
        description="The users of the **Salesforce** organisation, read-only. These fields are asked for, and those of "
        "`SALESFORCE_EXTRA_FIELDS`; one that the integration user may not see is left out.",
        group_name=GROUP,
        kinds={"salesforce"},
        tags=HOLDS_PEOPLE,
        metadata={
            COLUMN_SCHEMA: dg.TableSchema(
                [
                    column(
                        field.name, _salesforce_type(field), f"`sf_users.{field.column}`", nullable=not field.required
                    )
                    for field in USER_FIELDS
                ]
            )
        },
    ),
    dg.AssetSpec(
        AUTH_USERS,
        description="**Who can sign in**: Supabase's `auth.users`. Never written. These columns are looked at.",
        group_name=GROUP,
        kinds={"supabase", "table"},
        tags=HOLDS_PEOPLE,
        metadata={
            TABLE_NAME: "auth.users",
            COLUMN_SCHEMA: dg.TableSchema(
                [
                    column("id", "uuid", "The auth user"),
                    column("aud", "text", "Only `authenticated` users are in scope", nullable=True),
                    column(
                        "email", "text", "Links to Salesforce when verified and unique on both sides", nullable=True
                    ),
                    column("email_confirmed_at", "timestamptz", "Empty: not verified", nullable=True),
                    column("banned_until", "timestamptz", "Until then the user cannot sign in", nullable=True),
                    column("deleted_at", "timestamptz", "Soft-deleted users are out of scope", nullable=True),
                ]
            ),
        },
    ),
    dg.AssetSpec(
        USER_PROFILES,
        description="**Who can use the application**: one profile for each auth user. `profile_reconciliation` inserts "
        "those that are missing and leaves the others as they are.",
        group_name=GROUP,
        kinds={"supabase", "table"},
        tags=HOLDS_PEOPLE,
        metadata={
            TABLE_NAME: "public.user_profiles",
            COLUMN_SCHEMA: dg.TableSchema([column("id", "uuid", "The auth user whose profile it is")]),
        },
    ),
]


def catalogued(
    assets: Sequence[dg.AssetsDefinition], owners: Sequence[str], *, source_link: str | None
) -> list[dg.AssetsDefinition]:
    """Return the assets with their owners and a link to their source.

    `source_link` is where the top folder of the repository is shown at a branch or commit; or `IN_EDITOR`, which opens
    the file on the machine that serves Dagster; or None for no link.
    """
    owned = [asset.map_asset_specs(lambda spec: spec.replace_attributes(owners=list(owners))) for asset in assets]
    if source_link is None:
        return owned
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        linked = [asset for asset in dg.with_source_code_references(owned) if isinstance(asset, dg.AssetsDefinition)]
        if source_link == IN_EDITOR:
            return linked
        return [asset.map_asset_specs(lambda spec: _shown_at(source_link, spec)) for asset in linked]


def _shown_at(source_url: str, spec: dg.AssetSpec) -> dg.AssetSpec:
    [local] = spec.metadata[CODE_REFERENCES].code_references
    path = Path(local.file_path).relative_to(Path(user_sync_pipeline.__path__[0]).parent)
    shown = dg.UrlCodeReference(url=f"{source_url}/{path.as_posix()}#L{local.line_number}")
    return spec.merge_attributes(metadata={CODE_REFERENCES: dg.CodeReferencesMetadataValue(code_references=[shown])})
