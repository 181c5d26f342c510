"""A certificate authority of our own, so that the simulators speak TLS as the real services do.

What belongs here: making the files once and finding them again. What does not: serving (`http_server.py`).
Clients trust the servers through `ca_file`; the authority's own key is thrown away after use.
"""

from __future__ import annotations

from pathlib import Path

_HOSTS = ("localhost", "127.0.0.1")


class CertificateAuthority:
    """The PEM files in `folder`: made when they are missing, used again when they are there.

    The server certificate is for `localhost` and `127.0.0.1`; its key is readable by the owner alone.
    """

    def __init__(self, folder: Path) -> None:
        self.ca_file = folder / "ca.pem"
        self.server_certificate = folder / "server.pem"
        self.server_key = folder / "server.key"
        # The CA file is written last: when it is there, the other two belong to it.
        if not all(file.is_file() for file in (self.server_key, self.server_certificate, self.ca_file)):
            folder.mkdir(parents=True, exist_ok=True)
            self._make_files()

    def _make_files(self) -> None:
        import trustme

        authority = trustme.CA(organization_name="user_sync_pipeline sandbox")
        server = authority.issue_cert(*_HOSTS)
        self.ca_file.unlink(missing_ok=True)
        self.server_key.unlink(missing_ok=True)
        self.server_key.touch(mode=0o600)
        self.server_key.write_bytes(server.private_key_pem.bytes())
        self.server_certificate.write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
        self.ca_file.write_bytes(authority.cert_pem.bytes())
