"""What is said of secret files when the server starts."""

from __future__ import annotations

from pathlib import Path

from certificates import make_authority

from server.config import Settings
from server.transport.secrets import secrets_warnings


def test_secrets_that_every_user_can_read_are_named(tmp_path: Path) -> None:
    identity = make_authority(tmp_path, "server")
    tokens = tmp_path / "tokens"
    tokens.write_text("client abcdefghijklmnop\n")
    tokens.chmod(0o644)
    identity.key_path.chmod(0o640)
    settings = Settings(
        repository=tmp_path, tls_cert=identity.certificate_path, tls_key=identity.key_path, token_file=tokens
    )
    assert list(secrets_warnings(settings)) == [
        f"--token-file {tokens} can be read by every user of this machine: chmod o-r it"
    ]


def test_a_server_without_secrets_has_nothing_to_say(tmp_path: Path) -> None:
    assert list(secrets_warnings(Settings(repository=tmp_path))) == []
