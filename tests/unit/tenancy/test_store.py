"""The tenants' file: keys are hashed, changes are seen by others at once, and mistakes say what to do."""

import contextlib
import sqlite3
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from parrotserve.errors import DeclarationError, ServiceUnavailable, UnknownObject
from parrotserve.ids import TenantId
from parrotserve.tenancy.limits import LIFT, Limits
from parrotserve.tenancy.store import TenantStore
from parrotserve.tenancy.usage import Usage


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TenantStore]:
    store = TenantStore(tmp_path / "data")
    store.create_tenant("search", Limits(weight=3))
    yield store
    store.close()


def test_only_the_owner_may_read_the_file(store: TenantStore):
    store.create_key("search")
    files = list(store.path.parent.iterdir())
    assert store.path in files
    for path in (store.path.parent, *files):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_key_is_nowhere_in_the_file(store: TenantStore):
    _, text = store.create_key("search", label="a label")
    written = b"".join(path.read_bytes() for path in store.path.parent.iterdir())
    assert b"a label" in written
    assert text.encode() not in written
    assert text.removeprefix("parrot-").encode() not in written


def test_keys_are_long_and_differ(store: TenantStore):
    keys = {store.create_key("search")[1] for _ in range(20)}
    assert len(keys) == 20
    assert min(map(len, keys)) >= 43  # 32 bytes in base64


def test_a_key_is_revoked_by_its_id_or_itself_and_stays_listed(store: TenantStore):
    (one, _), (other, text) = store.create_key("search"), store.create_key("search")
    assert store.revoke_key(one).id == one
    assert store.revoke_key(text).id == other
    revoked = store.keys("search")
    assert None not in [key.revoked for key in revoked]
    store.revoke_key(one)
    assert store.keys("search") == revoked


def test_another_connection_sees_that_something_changed(store: TenantStore):
    other = TenantStore(store.path.parent)
    assert not store.changed()
    other.set_limits("search", Limits(sessions=2))
    assert store.changed()
    assert not store.changed()
    assert store.tenant("search").limits == Limits(sessions=2)
    other.close()


def test_limits_are_changed_one_by_one_and_lifted():
    limits = Limits(weight=2).changed({"sessions": 3, "weight": None})
    assert limits == Limits(weight=2, sessions=3)
    assert limits.changed({"sessions": LIFT}) == Limits(weight=2)
    assert Limits.from_json(limits.to_json()) == limits


@pytest.mark.parametrize("changes", [{"weight": 0}, {"sessions": 0}, {"body_bytes": 10}, {"weight": float("nan")}])
def test_limits_that_make_no_sense_are_refused(changes: dict[str, float]):
    with pytest.raises(DeclarationError):
        Limits().changed(changes)


@pytest.mark.parametrize("name", ["", "a b", "local", "x" * 65, "ünder", "search"])
def test_names_that_cannot_be_are_refused(store: TenantStore, name: str):
    with pytest.raises(DeclarationError):
        store.create_tenant(name, Limits())


def test_what_is_not_there_is_told(store: TenantStore):
    for ask in (
        lambda: store.create_key("serach"),
        lambda: store.set_limits("serach", Limits()),
        lambda: store.revoke_key("k-000000000000"),
        lambda: store.unpublish("p-0"),
    ):
        with pytest.raises(UnknownObject, match="parrot "):
            ask()


def test_a_file_that_is_no_database_is_told(tmp_path: Path):
    (tmp_path / "tenants.db").write_text("something else, long enough to be no database header at all")
    with pytest.raises(ServiceUnavailable, match=r"cannot be opened: file is not a database\. Put a backup in its"):
        TenantStore(tmp_path)


def test_a_file_that_another_process_keeps_to_itself_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("parrotserve.tenancy.store._BUSY_SECONDS", 0.0)
    with contextlib.closing(sqlite3.connect(tmp_path / "tenants.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ServiceUnavailable, match=r"cannot be opened: database is locked\. Another process"):
            TenantStore(tmp_path)


def test_a_file_of_a_later_version_is_left_alone(store: TenantStore):
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as later:
        ((form,),) = later.execute("PRAGMA user_version").fetchall()
        assert form > 0
        later.execute(f"PRAGMA user_version = {form + 1}")
        with pytest.raises(ServiceUnavailable, match="were written by a later version of Parrot"):
            TenantStore(store.path.parent)


def test_a_file_from_before_files_had_a_version_is_taken(store: TenantStore):
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as earlier:
        earlier.execute("PRAGMA user_version = 0")
    with contextlib.closing(TenantStore(store.path.parent)) as again:
        assert [tenant.name for tenant in again.tenants()] == ["search"]


def test_a_folder_that_cannot_be_made_is_told_with_what_to_do(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ServiceUnavailable, match=r"cannot be opened: Not a directory\. Set PARROT_DATA, or --data"):
        TenantStore(tmp_path / "file" / "parrot")


def test_usage_adds_up_by_tenant_and_day(store: TenantStore):
    one = {TenantId("search"): Usage(1, 10, 5, 2, 0.5), TenantId("chat"): Usage(2, 1, 0, 1, 0.25)}
    store.add_usage("2026-01-01", one)
    store.add_usage("2026-01-01", one)
    store.add_usage("2026-01-02", one)
    assert list(store.usage("search")) == [
        ("2026-01-01", "search", Usage(2, 20, 10, 4, 1.0)),
        ("2026-01-02", "search", Usage(1, 10, 5, 2, 0.5)),
    ]
    assert len(list(store.usage())) == 4


def test_a_file_that_was_removed_is_not_made_anew_by_usage(tmp_path: Path):
    with contextlib.closing(TenantStore(tmp_path / "da?ta#%20")) as store:
        store.add_usage("2026-01-01", {TenantId("search"): Usage(requests=1)})
        assert len(store.usage()) == 1
        for path in store.path.parent.iterdir():
            path.unlink()
        with pytest.raises(ServiceUnavailable, match="cannot be written: unable to open"):
            store.add_usage("2026-01-01", {TenantId("search"): Usage(requests=1)})
        assert not store.path.exists()


def test_usage_is_not_waited_for_where_others_are_served_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("parrotserve.tenancy.store._BUSY_SECONDS", 3600.0)
    store, other = TenantStore(tmp_path), sqlite3.connect(tmp_path / "tenants.db", isolation_level=None)
    one = {TenantId("search"): Usage(1, 10, 5, 2, 0.5)}
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ServiceUnavailable, match="cannot be written"):
        store.add_usage("2026-01-01", one, wait=False)
    other.execute("ROLLBACK")
    store.add_usage("2026-01-01", one, wait=False)
    assert store.usage() == [("2026-01-01", "search", one[TenantId("search")])]
    other.close()
    store.close()


def test_usage_is_written_and_read_in_any_thread_while_keys_are_looked_up(store: TenantStore):
    one = {TenantId("search"): Usage(1, 10, 5, 2, 0.5)}
    with ThreadPoolExecutor(1) as other:
        other.submit(store.add_usage, "2026-01-01", one).result()
        assert other.submit(store.usage, "search").result() == [("2026-01-01", "search", one[TenantId("search")])]
    assert store.usage("nobody") == []


def test_usage_is_no_reason_to_read_keys_again(store: TenantStore):
    other, store = store, TenantStore(store.path.parent)
    for writer in (store, other):
        writer.add_usage("2026-01-01", {TenantId("search"): Usage(1, 10, 5, 2, 0.5)})
        assert not store.changed()
    for change in (
        lambda: other.create_key("search"),
        lambda: other.revoke_key(other.keys()[0].id),
        lambda: other.create_tenant("chat", Limits()),
        lambda: other.unpublish(other.publish("a text that all share")),
    ):
        change()
        assert store.changed()
        assert not store.changed()
    store.close()
