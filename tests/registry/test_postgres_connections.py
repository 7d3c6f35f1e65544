"""Connections to PostgreSQL: encrypted when asked, told why when refused, used again after a restart."""

from __future__ import annotations

import datetime
import ipaddress
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import make_url, text

from contracts.errors import DependencyDown, UsageError
from contracts.rollout import RowKind
from registry.ledger import RowDraft
from registry.sql_engine import engine_of
from registry.sql_ledger import SqlLedger
from tests.postgres_cluster import Cluster, cluster
from tests.registry.rig import START

DRAFT = RowDraft("demand", RowKind.RETRAIN_REQUESTED, "v1", START, "ann", "because", "q1")


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Path]]:
    """A cluster that speaks TLS, and the certificate that vouches for it."""
    certificate = tmp_path_factory.mktemp("certificate") / "root.crt"
    with cluster() as running:
        _certify(running.folder / "data", certificate)
        with (running.folder / "data" / "postgresql.conf").open("a") as file:
            file.write("ssl = on\n")
        running.stop("fast")
        running.start()
        yield running, certificate


def _certify(data: Path, copy: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ledger")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = serialization.PrivateFormat.PKCS8
    plain = serialization.NoEncryption()
    owner = data.stat()
    for place, content in (
        (data / "server.crt", certificate.public_bytes(serialization.Encoding.PEM)),
        (data / "server.key", key.private_bytes(serialization.Encoding.PEM, private, plain)),
    ):
        place.write_bytes(content)
        place.chmod(0o600)
        shutil.chown(place, owner.st_uid, owner.st_gid)
    copy.write_bytes((data / "server.crt").read_bytes())


def _is_encrypted(url: str) -> bool:
    with engine_of(url).connect() as connection:
        return bool(connection.execute(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")).scalar())


@pytest.mark.parametrize(
    ("asked", "found"), [("", True), ("?sslmode=prefer", True), ("?sslmode=require", True), ("?sslmode=disable", False)]
)
def test_encryption_is_what_the_url_asks_for(encrypted: tuple[Cluster, Path], asked: str, found: bool) -> None:
    """The server is asked whether this very connection is encrypted."""
    assert _is_encrypted(encrypted[0].database() + asked) is found


def test_a_server_is_verified_when_the_url_says_so(encrypted: tuple[Cluster, Path]) -> None:
    """With verify-full only a certificate that the root vouches for, and for this host, will do."""
    running, certificate = encrypted
    url = running.database()
    assert _is_encrypted(f"{url}?sslmode=verify-full&sslrootcert={certificate}")
    with pytest.raises(DependencyDown, match="certificate verify failed"):
        SqlLedger(f"{url}?sslmode=verify-full").append(DRAFT, 0)
    elsewhere = url.replace("127.0.0.1", "localhost")
    with pytest.raises(DependencyDown, match="certificate verify failed"):
        SqlLedger(f"{elsewhere}?sslmode=verify-full&sslrootcert={certificate}").append(DRAFT, 0)


def test_a_server_without_encryption_is_refused_when_it_is_required(postgres: Cluster) -> None:
    """No silent fall-back to plain text."""
    with pytest.raises(DependencyDown, match="Server refuses SSL"):
        SqlLedger(postgres.database() + "?sslmode=require").append(DRAFT, 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [("?sslmode=always", "sslmode=always"), ("?sslcert=x", "sslcert"), ("?sslmode=verify-full&sslrootcert=/no", "/no")],
)
def test_what_a_url_cannot_say_is_a_usage_error(words: str, said: str) -> None:
    """A slip in the URL is named, with what it may say."""
    with pytest.raises(UsageError, match=said):
        engine_of("postgresql+pg8000://u:secret@127.0.0.1/d" + words)


def test_a_missing_driver_is_a_usage_error() -> None:
    """Without pg8000 the message names the extra that brings it."""
    program = (
        "import sys; sys.modules['pg8000'] = None\n"
        "from contracts.errors import UsageError\nfrom registry.sql_engine import engine_of\n"
        "try:\n    engine_of('postgresql+pg8000://u@127.0.0.1/d')\n"
        "except UsageError as error:\n    sys.exit(0 if 'seatrial[postgres]' in str(error) else 5)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0


def test_a_restarted_server_is_used_again(postgres: Cluster) -> None:
    """The pooled connection is dead after the restart; the next append does not notice."""
    with cluster() as own:
        ledger = SqlLedger(own.database(), busy_timeout=5)
        ledger.append(DRAFT, 0)
        own.stop("fast")
        own.start()
        assert ledger.append(DRAFT, 0).revision == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [({"database": "nowhere"}, "does not exist"), ({"username": "nobody"}, "does not exist"), ({"port": 1}, "refused")],
)
def test_a_server_that_refuses_says_why(postgres: Cluster, change: dict[str, object], said: str) -> None:
    """The server's own words in one line, without the password."""
    url = make_url(postgres.database()).set(password="hunter2").set(**change)  # type: ignore[arg-type]
    with pytest.raises(DependencyDown, match=said) as error:
        SqlLedger(url.render_as_string(hide_password=False)).append(DRAFT, 0)
    assert "hunter2" not in str(error.value)


def test_nobody_waits_for_ever_for_a_lock(postgres: Cluster) -> None:
    """While somebody holds the table, a writer is told after its busy timeout, and gets through afterwards."""
    url = postgres.database()
    ledger = SqlLedger(url, busy_timeout=0.3)
    ledger.append(DRAFT, 0)
    other = RowDraft("other", RowKind.RETRAIN_REQUESTED, "v1", START, "ann", "because", "q1")
    with engine_of(url).begin() as holder:
        holder.execute(text("LOCK TABLE seatrial_ledger IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(DependencyDown, match="timeout"):
            ledger.append(other, 0)
    assert ledger.append(other, 0).revision == 1
