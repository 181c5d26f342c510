"""A plain client of the Salesforce simulator, and the organisation that its tests ask."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import requests

from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator

VERSION = "66.0"
DATA = f"/services/data/v{VERSION}"
UNTIL = datetime(2026, 6, 1, tzinfo=UTC)
NOW = datetime(2026, 6, 2, 10, 30, tzinfo=UTC)
USERS = 450
IN_ORDER = "SELECT Id, SystemModstamp FROM User ORDER BY SystemModstamp, Id"
Json = Any


class Client:
    """A client that knows the address and carries a token."""

    def __init__(self, simulator: SalesforceSimulator) -> None:
        self.simulator = simulator
        self.settings = simulator.environment()
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = self.settings["SALESFORCE_CA_BUNDLE"]

    def close(self) -> None:
        self.session.close()

    def sign_in(self, **form: str) -> requests.Response:
        credentials = {
            "grant_type": "client_credentials",
            "client_id": self.settings["SALESFORCE_CLIENT_ID"],
            "client_secret": self.settings["SALESFORCE_CLIENT_SECRET"],
        }
        url = f"{self.settings['SALESFORCE_LOGIN_URL']}/services/oauth2/token"
        return self.session.post(url, data=credentials | form, timeout=60)

    def carry_token(self) -> str:
        token: str = self.sign_in().json()["access_token"]
        self.session.headers["Authorization"] = f"Bearer {token}"
        return token

    def get(self, path: str, *, page_size: int | None = None, **parameters: str) -> requests.Response:
        headers = {} if page_size is None else {"Sforce-Query-Options": f"batchSize={page_size}"}
        return self.session.get(self.simulator.url + path, params=parameters, headers=headers, timeout=60)

    def query(self, soql: str, **options: Any) -> Json:
        response = self.get(f"{DATA}/query", q=soql, **options)
        response.raise_for_status()
        return response.json()

    def pages(self, soql: str, *, page_size: int | None = None) -> Iterator[Json]:
        page = self.query(soql, page_size=page_size)
        yield page
        while not page["done"]:
            page = self.get(page["nextRecordsUrl"], page_size=page_size).json()
            yield page


def error_code(response: requests.Response) -> tuple[int, str]:
    [error] = response.json()
    assert error["message"]
    return response.status_code, error["errorCode"]
