"""An Apache Kafka with TLS, SASL and rights on free ports, with certificates made for the test."""

from __future__ import annotations

import datetime
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it says not what it exports
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives import serialization
from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ResourcePattern,
    ResourceType,
)

from tests.services import PATIENCE, Broker, cluster_id, free_ports, wait_for

PASSWORD = "right-secret"  # noqa: S105  of a test
KEY_PASSWORD = "key-secret"  # noqa: S105  of a test
USERS = ("app", "consumer", "serving", "publisher", "operator")
MECHANISMS = "PLAIN,SCRAM-SHA-256"
SCRAM_ITERATIONS = 4_096  # the least that Kafka takes
REAUTH_MS = 5_000  # a password that was changed is asked for after this long
PROTOCOLS = {
    "PLAIN": "PLAINTEXT",
    "TLS": "SSL",
    "OLDTLS": "SSL",  # shows a certificate that has expired
    "MUTUAL": "SSL",  # asks for the client's certificate
    "SASL": "SASL_PLAINTEXT",
    "SASLTLS": "SASL_SSL",
}


Rights = Mapping[tuple[str, str], str]  # (kind of resource, its name) -> operations


@dataclass
class Certificates:
    """PEM files in one folder: of the broker's authority, of a client, and wrong ones."""

    folder: Path

    def __post_init__(self) -> None:
        self.ca, stranger = trustme.CA(), trustme.CA()
        self._write("ca.pem", self.ca.cert_pem.bytes())
        self._write("stranger.pem", stranger.cert_pem.bytes())
        self._pair("server", self.ca.issue_cert("127.0.0.1"))
        self._pair("client", self.ca.issue_cert("app.example"))
        self._pair("unknown", stranger.issue_cert("app.example"))
        old = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        self._pair("expired", self.ca.issue_cert("app.example", not_after=old))
        self._pair("old-server", self.ca.issue_cert("127.0.0.1", not_after=old))

    def path(self, name: str) -> Path:
        return self.folder / name

    def _write(self, name: str, content: bytes) -> None:
        self.path(name).write_bytes(content)

    def _pair(self, name: str, cert: trustme.LeafCert) -> None:
        key = serialization.load_pem_private_key(cert.private_key_pem.bytes(), None)
        chain = b"".join(pem.bytes() for pem in cert.cert_chain_pems)
        as_pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        plain = key.private_bytes(*as_pem, serialization.NoEncryption())
        hidden = serialization.BestAvailableEncryption(KEY_PASSWORD.encode())
        self._write(f"{name}.crt", chain)
        self._write(f"{name}.key", plain)
        self._write(f"{name}.locked.key", key.private_bytes(*as_pem, hidden))
        self._write(f"{name}.pem", plain + chain)


class SecureKafka:
    """The broker; `address` of each listener by its name in PROTOCOLS."""

    def __init__(self, folder: Path) -> None:
        self.certificates = Certificates(folder)
        *ports, controller = free_ports(len(PROTOCOLS) + 1)
        self.address = {
            name: f"127.0.0.1:{port}" for name, port in zip(PROTOCOLS, ports, strict=True)
        }
        home = Path(os.environ["KAFKA_HOME"])
        config = folder / "server.properties"
        text = (home / "config" / "server.properties").read_text()
        text = text.replace("/tmp/kafka-logs", str(folder / "logs"))  # noqa: S108  replaced
        config.write_text(text + "\n".join(self._settings(controller)))
        storage = str(home / "bin" / "kafka-storage.sh")
        command = [storage, "format", "--standalone", "-t", cluster_id(), "-c", str(config)]
        for user in USERS:
            command += ["--add-scram", f"SCRAM-SHA-256=[name={user},password={PASSWORD}]"]
        subprocess.run(command, check=True, capture_output=True)
        start = [str(home / "bin" / "kafka-server-start.sh"), str(config)]
        port = int(self.address["PLAIN"].split(":")[1])
        self.broker = Broker(start, port, folder / "kafka.log")

    def _settings(self, controller: int) -> Iterator[str]:
        """Lines that come after those of the distribution's file, and win."""
        yield ""
        listeners = ",".join(f"{name}://{address}" for name, address in self.address.items())
        yield f"listeners={listeners},CONTROLLER://127.0.0.1:{controller}"
        yield f"advertised.listeners={listeners}"
        protocols = ",".join(f"{name}:{protocol}" for name, protocol in PROTOCOLS.items())
        yield f"listener.security.protocol.map={protocols},CONTROLLER:PLAINTEXT"
        yield "inter.broker.listener.name=PLAIN"
        yield f"controller.quorum.bootstrap.servers=127.0.0.1:{controller}"
        yield "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer"
        yield "super.users=User:ANONYMOUS"  # who comes without SASL
        yield "ssl.keystore.type=PEM"
        yield f"ssl.keystore.location={self.certificates.path('server.pem')}"
        yield "ssl.truststore.type=PEM"
        yield f"ssl.truststore.location={self.certificates.path('ca.pem')}"
        old = self.certificates.path("old-server.pem")
        yield f"listener.name.oldtls.ssl.keystore.location={old}"
        yield "listener.name.oldtls.ssl.keystore.type=PEM"
        yield "listener.name.mutual.ssl.client.auth=required"
        yield "ssl.principal.mapping.rules=RULE:^.*$/ANONYMOUS/"
        plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        users = " ".join(f'user_{user}="{PASSWORD}"' for user in USERS)
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        for name in ("sasl", "sasltls"):
            listener = f"listener.name.{name}"
            yield f"{listener}.connections.max.reauth.ms={REAUTH_MS}"
            yield f"{listener}.sasl.enabled.mechanisms={MECHANISMS}"
            yield f"{listener}.plain.sasl.jaas.config={plain} {users};"
            yield f"{listener}.scram-sha-256.sasl.jaas.config={scram}"

    def right(self, listener: str) -> dict[str, str]:
        """Environment variables that reach the listener."""
        env = {
            "KAFKA_BOOTSTRAP_SERVERS": self.address[listener],
            "KAFKA_SECURITY_PROTOCOL": PROTOCOLS[listener],
        }
        if "TLS" in listener or listener == "MUTUAL":
            env["KAFKA_SSL_CAFILE"] = str(self.certificates.path("ca.pem"))
        if listener == "MUTUAL":
            env["KAFKA_SSL_CERTFILE"] = str(self.certificates.path("client.crt"))
            env["KAFKA_SSL_KEYFILE"] = str(self.certificates.path("client.key"))
        if listener.startswith("SASL"):
            env |= {
                "KAFKA_SASL_MECHANISM": "SCRAM-SHA-256",
                "KAFKA_SASL_USERNAME": "app",
                "KAFKA_SASL_PASSWORD": PASSWORD,
            }
        return env

    @contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        """A client that may do everything."""
        client = KafkaAdminClient(bootstrap_servers=self.address["PLAIN"])
        try:
            yield client
        finally:
            client.close()

    def allow(self, rights: Rights, user: str = "app") -> None:
        """Give rights: (kind of resource, name) -> operations, separated by spaces."""
        with self.admin() as admin:
            admin.create_acls(list(_acls(rights, user)))
            wait_for("the rights", lambda: all(_known(admin, rights, user)))

    def take(self, rights: Rights, user: str = "app") -> None:
        """Take rights back."""
        with self.admin() as admin:
            admin.delete_acls(list(_acls(rights, user)))
            wait_for("the rights to go", lambda: not any(_known(admin, rights, user)))

    def password(self, password: str, user: str = "app") -> None:
        """Change a user's password of SCRAM."""
        admin = AdminClient({"bootstrap.servers": self.address["PLAIN"]})
        form = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, SCRAM_ITERATIONS)
        change = UserScramCredentialUpsertion(user, form, password.encode())
        admin.alter_user_scram_credentials([change])[user].result(PATIENCE)


def _acls(rights: Rights, user: str) -> Iterator[ACL]:
    for (kind, name), operations in rights.items():
        for operation in operations.split():
            yield ACL(
                principal=f"User:{user}",
                host="*",
                operation=ACLOperation[operation],
                permission_type=ACLPermissionType.ALLOW,
                resource_pattern=ResourcePattern(ResourceType[kind], name),
            )


def _known(admin: KafkaAdminClient, rights: Rights, user: str) -> Iterator[bool]:
    """Whether the broker goes by each right yet; it is told a moment after it has stored them."""
    for acl in _acls(rights, user):
        found, _ = admin.describe_acls(acl)
        yield bool(found)


@contextmanager
def secure_kafka(folder: Path) -> Iterator[SecureKafka]:
    """An Apache Kafka with every way to reach it."""
    made = SecureKafka(folder)
    try:
        yield made
    finally:
        made.broker.stop()
