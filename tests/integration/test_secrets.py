"""SecretService: values go in, and come out nowhere: no answer, event, log, file or backup has them."""
import os
import subprocess

import pytest

from harness.client import pb
from harness.errors import refused

VALUE = b"correct horse battery staple"


def make(client, name, request_id="", **fields):
    return client.secret.CreateSecret(pb.CreateSecretRequest(secret=pb.Secret(name=name, **fields), request_id=request_id)).secret


def set_value(client, name, value=VALUE, **fields):
    return client.secret.SetSecretValue(pb.SetSecretValueRequest(name=name, value=value, **fields)).secret


def found_in(folder, value=VALUE):
    """The files below a folder that have the value in them."""
    done = subprocess.run(["grep", "-rlaF", value.decode(), folder], stdout=subprocess.PIPE, text=True)
    return done.stdout.split()


def test_a_secrets_life(daemon, client):
    made = make(client, "disk", usage=pb.SECRET_USAGE_IMAGE, labels={"tenant": "blue"}, description="of web")
    assert made.uid and made.revision and not made.has_value and made.create_time.seconds
    changed = set_value(client, "disk")
    assert changed.has_value and changed.revision > made.revision and changed.value_time.seconds
    make(client, "ceph", usage=pb.SECRET_USAGE_CEPH)
    listed = client.secret.ListSecrets(pb.ListSecretsRequest())
    assert [secret.name for secret in listed.secrets] == ["ceph", "disk"]
    only = client.secret.ListSecrets(pb.ListSecretsRequest(filter=pb.SecretFilter(usages=[pb.SECRET_USAGE_IMAGE], names=["d*"], labels={"tenant": "blue"})))
    assert [secret.name for secret in only.secrets] == ["disk"]
    page = client.secret.ListSecrets(pb.ListSecretsRequest(page_size=1))
    rest = client.secret.ListSecrets(pb.ListSecretsRequest(page_size=1, page_token=page.next_page_token))
    assert [page.secrets[0].name, rest.secrets[0].name] == ["ceph", "disk"] and not rest.next_page_token
    daemon.restart()
    client = daemon.client()
    assert client.secret.GetSecret(pb.GetSecretRequest(uid=made.uid)).secret == changed
    with refused("ABORTED", reason="REVISION_CONFLICT"):
        client.secret.DeleteSecret(pb.DeleteSecretRequest(name="disk", revision=1))
    client.secret.DeleteSecret(pb.DeleteSecretRequest(name="disk", revision=changed.revision))
    with refused("NOT_FOUND", reason="SECRET_NOT_FOUND"):
        client.secret.GetSecret(pb.GetSecretRequest(name="disk"))
    events = client.event.ListEvents(pb.ListEventsRequest(oldest_first=True, filter=pb.EventFilter(resource_types=["secret"]))).events
    assert [pb.EventType.Name(event.type)[len("EVENT_TYPE_SECRET_"):] for event in events] == ["CREATED", "VALUE_SET", "CREATED", "DELETED"]


def test_what_cannot_be(client):
    make(client, "a")
    with refused("ALREADY_EXISTS", reason="SECRET_EXISTS"):
        make(client, "a")
    with refused("INVALID_ARGUMENT"):
        make(client, "")
    with refused("INVALID_ARGUMENT"):
        client.secret.GetSecret(pb.GetSecretRequest())
    with refused("INVALID_ARGUMENT"):
        set_value(client, "a", b"x" * 65537)
    set_value(client, "a", b"x" * 65536)
    with refused("NOT_FOUND"):
        set_value(client, "b")
    assert client.secret.CreateSecret(pb.CreateSecretRequest(secret=pb.Secret(name="dry"), validate_only=True)).secret.uid
    with refused("NOT_FOUND"):
        client.secret.GetSecret(pb.GetSecretRequest(name="dry"))


def test_retries_are_answered(daemon, client):
    made = make(client, "a", request_id="1")
    assert make(client, "a", request_id="1") == made
    with refused("INVALID_ARGUMENT", reason="REQUEST_ID_REUSED"):
        make(client, "b", request_id="1")
    changed = set_value(client, "a", request_id="2")
    assert set_value(client, "a", request_id="2").revision == changed.revision
    with refused("INVALID_ARGUMENT", reason="REQUEST_ID_REUSED"):
        set_value(client, "a", b"another", request_id="2")
    gone = client.secret.DeleteSecret(pb.DeleteSecretRequest(name="a", request_id="3")).revision
    daemon.restart()
    assert daemon.client().secret.DeleteSecret(pb.DeleteSecretRequest(name="a", request_id="3")).revision == gone


def test_the_value_is_nowhere(daemon, client):
    make(client, "a")
    set_value(client, "a", request_id="r")
    with refused("NOT_FOUND"):
        set_value(client, "absent")
    backup = b"".join(part.data for part in client.admin.BackupStore(pb.BackupStoreRequest()))
    assert len(backup) > 4096 and VALUE not in backup
    answers = [client.secret.GetSecret(pb.GetSecretRequest(name="a")), client.secret.ListSecrets(pb.ListSecretsRequest()),
               client.event.ListEvents(pb.ListEventsRequest(page_size=1000))]
    assert not any(VALUE in answer.SerializeToString() for answer in answers)
    daemon.stop()
    assert not found_in(daemon.folder)


@pytest.mark.parametrize("how", ["file", "systemd credential"])
def test_the_key_comes_from_outside(make_daemon, how):
    """And without it there is no start, nor a new key over the old values."""
    daemon = make_daemon()
    key = daemon.path("virtplane-secrets-key")
    with open(key, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(os.urandom(32))
    if how == "file":
        daemon.config = f"[secrets]\nkey_file={key}\n"
    else:
        daemon.env["CREDENTIALS_DIRECTORY"] = daemon.folder
    daemon.start()
    make(daemon.client(), "a")
    set_value(daemon.client(), "a")
    daemon.restart()
    assert daemon.client().secret.GetSecret(pb.GetSecretRequest(name="a")).secret.has_value
    daemon.stop()
    assert not os.path.exists(os.path.join(daemon.state_dir, "secrets.key"))
    daemon.config = None
    daemon.env.pop("CREDENTIALS_DIRECTORY", None)
    code, said = daemon.try_start()
    assert code == 1 and "another key" in said


def test_ephemeral_ones_end_with_the_daemon(daemon, client):
    make(client, "short", ephemeral=True)
    assert set_value(client, "short").has_value
    daemon.restart()
    with refused("NOT_FOUND"):
        daemon.client().secret.GetSecret(pb.GetSecretRequest(name="short"))
