"""Whom a key belongs to, and what is told where the store cannot be read or written."""

import contextlib
import logging
import sqlite3
from pathlib import Path

import pytest

from parrotserve.errors import ServiceUnavailable
from parrotserve.ids import TenantId
from parrotserve.tenancy.directory import Directory
from parrotserve.tenancy.store import TenantStore
from parrotserve.tenancy.usage import Usage

USED = {TenantId("search"): Usage(requests=1)}


def test_that_usage_cannot_be_saved_is_told_once_and_so_is_that_it_can_be_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("parrotserve.tenancy.store._BUSY_SECONDS", 0.0)
    with contextlib.closing(TenantStore(tmp_path)) as store, caplog.at_level(logging.INFO):
        directory = Directory(store)

        def save(times: int, *, wait: bool = False) -> list[str]:
            caplog.clear()
            for _ in range(times):
                directory.add_usage("2026-01-01", USED, wait=wait)
            return [record.message for record in caplog.records]

        with contextlib.closing(sqlite3.connect(tmp_path / "tenants.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert save(1) == [], "somebody may have written at that moment"
            (told,) = save(100)
            assert "usage is not saved yet: The tenants in" in told
            assert len(save(1, wait=True)) == 1, "whoever waits tries for the last time"
            other.execute("ROLLBACK")
        assert save(100) == ["usage is saved again"]


def test_that_the_store_cannot_be_read_is_told_once_a_minute_and_so_is_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    now = 1000.0
    with (
        contextlib.closing(TenantStore(tmp_path)) as store,
        contextlib.closing(sqlite3.connect(tmp_path / "tenants.db", isolation_level=None)) as other,
    ):
        directory = Directory(store, clock=lambda: now)

        def refused(times: int) -> list[str]:
            caplog.clear()
            for _ in range(times):
                with pytest.raises(ServiceUnavailable, match="the log of the service says why"):
                    directory.authenticate(None)
            return [record.message for record in caplog.records]

        other.execute("ALTER TABLE revision RENAME TO gone")
        (told,) = refused(100)
        assert "no such table" in told
        now += 59
        assert refused(100) == []
        now += 2
        (told,) = refused(100)
        assert "for 61 s by now" in told
        other.execute("ALTER TABLE gone RENAME TO revision")
        caplog.clear()
        for _ in range(100):
            directory.authenticate(None)
        assert [record.message for record in caplog.records] == ["tenants are read again, after 61 s"]
        other.execute("ALTER TABLE revision RENAME TO gone")
        assert len(refused(100)) == 1, "it begins anew"
