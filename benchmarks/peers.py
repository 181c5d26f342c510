"""The usual ways to bring Salesforce users into Postgres, each as a program of its own for `pipeline.py`.

    python benchmarks/peers.py session-merge|pandas|dlt|dlt-tuned

`PEER` in the environment is JSON: instance_url, token, ca_bundle, query, page_size, database_url, and columns (API
name: column of the table `public.peer_users`). Imports nothing of this project, so that it runs where only the peer
lives.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import requests
from simple_salesforce import Salesforce

PEER = json.loads(os.environ["PEER"])
ROWS_A_COMMIT = 200


def client() -> Salesforce:
    session = requests.Session()
    session.trust_env = False
    session.verify = PEER["ca_bundle"]
    session.headers["Sforce-Query-Options"] = f"batchSize={PEER['page_size']}"
    return Salesforce(session_id=PEER["token"], instance_url=PEER["instance_url"], session=session)


def session_merge() -> None:
    """`query_all`, `session.merge` a record, a commit each 200."""
    import sqlalchemy as sa
    from sqlalchemy.orm import Session, registry

    class User:
        pass

    engine = sa.create_engine(PEER["database_url"])
    table = sa.Table("peer_users", sa.MetaData(), autoload_with=engine)
    registry().map_imperatively(User, table)
    moments = {column.name for column in table.columns if isinstance(column.type, sa.DateTime)}
    with Session(engine) as session:
        for number, record in enumerate(client().query_all(PEER["query"])["records"], start=1):
            user = User()
            for name, column in PEER["columns"].items():
                value = record[name]
                setattr(user, column, datetime.fromisoformat(value) if value and column in moments else value)
            session.merge(user)
            if number % ROWS_A_COMMIT == 0:
                session.commit()
        session.commit()


def pandas() -> None:
    """`query_all`, a DataFrame, `to_sql` into a staging table, INSERT … ON CONFLICT."""
    import pandas as pd
    import sqlalchemy as sa

    engine = sa.create_engine(PEER["database_url"])
    types = {column.name: column.type for column in sa.Table("peer_users", sa.MetaData(), autoload_with=engine).columns}
    columns = PEER["columns"]
    frame = pd.DataFrame(client().query_all(PEER["query"])["records"])[list(columns)].rename(columns=columns)
    for column in columns.values():
        if isinstance(types[column], sa.DateTime):
            frame[column] = pd.to_datetime(frame[column], utc=True)
    listed = ", ".join(columns.values())
    assignments = ", ".join(f"{column} = excluded.{column}" for column in columns.values() if column != "id")
    with engine.begin() as connection:
        kinds = {column: types[column] for column in columns.values()}
        frame.to_sql("peer_stage", connection, if_exists="replace", index=False, chunksize=1000, dtype=kinds)
        connection.exec_driver_sql(
            f"INSERT INTO peer_users ({listed}) SELECT {listed} FROM peer_stage "
            f"ON CONFLICT (id) DO UPDATE SET {assignments}"
        )


def dlt(*, tuned: bool = False) -> None:
    """A dlt pipeline that merges; tuned: by files of CSV and the strategy "upsert"."""
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    import dlt as library

    def pages() -> Iterator[list[dict[str, Any]]]:
        salesforce = client()
        page = salesforce.query(PEER["query"])
        while True:
            yield [{name: record[name] for name in PEER["columns"]} for record in page["records"]]
            if page["done"]:
                return
            page = salesforce.query_more(page["nextRecordsUrl"], identifier_is_url=True)

    disposition: Any = {"disposition": "merge", "strategy": "upsert"} if tuned else "merge"
    users = library.resource(pages, name="users", primary_key="Id", write_disposition=disposition)
    with tempfile.TemporaryDirectory() as folder:
        pipeline = library.pipeline(
            "peer",
            pipelines_dir=folder,
            destination=library.destinations.postgres(PEER["database_url"].replace("+psycopg", "")),
            dataset_name="peer_dlt",
        )
        pipeline.run(users, loader_file_format="csv" if tuned else None).raise_on_failed_jobs()


WAYS = {"session-merge": session_merge, "pandas": pandas, "dlt": dlt, "dlt-tuned": lambda: dlt(tuned=True)}

if __name__ == "__main__":
    WAYS[sys.argv[1]]()
