"""What lasts of tenants, in one SQLite file: names, limits, hashed keys, published texts and usage.

Commands write it while services read it: the file is in WAL mode, where readers never wait, and `changed` tells a
process that has the store open whether another one wrote to it.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parrotserve.errors import DeclarationError, ServiceUnavailable, UnknownObject
from parrotserve.ids import LOCAL_TENANT, TenantId
from parrotserve.tenancy.keys import hash_key, make_key
from parrotserve.tenancy.limits import Limits
from parrotserve.tenancy.usage import Usage

FILE = "tenants.db"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS tenants (name TEXT PRIMARY KEY, created REAL NOT NULL, limits TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY, hash BLOB NOT NULL UNIQUE, tenant TEXT NOT NULL REFERENCES tenants (name),
    label TEXT NOT NULL, operator INTEGER NOT NULL, created REAL NOT NULL, revoked REAL
) STRICT;
CREATE TABLE IF NOT EXISTS published (id TEXT PRIMARY KEY, text TEXT NOT NULL UNIQUE, created REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS usage (
    tenant TEXT NOT NULL, day TEXT NOT NULL, requests INTEGER NOT NULL, prompt INTEGER NOT NULL,
    cached INTEGER NOT NULL, output INTEGER NOT NULL, seconds REAL NOT NULL, PRIMARY KEY (tenant, day)
) STRICT;
CREATE TABLE IF NOT EXISTS revision AS SELECT 0 AS number;
""" + "".join(
    f"CREATE TRIGGER IF NOT EXISTS {table}_{change} AFTER {change} ON {table} "
    "BEGIN UPDATE revision SET number = number + 1; END;\n"
    for table in ("tenants", "keys", "published")
    for change in ("insert", "update", "delete")
)
"""`revision` counts all changes of the tables except usage, which is written every few seconds."""

_FORM = 1
"""Version of the tables above, stored in the file. Files with a higher one must not be written."""
_ADVICE = {
    sqlite3.SQLITE_NOTADB: "Put a backup in its place, or move it away for a new one, without tenants and keys.",
    sqlite3.SQLITE_CORRUPT: "Put a backup in its place, or move it away for a new one, without tenants and keys.",
    sqlite3.SQLITE_BUSY: "Another process writes it for long; try again, or end that.",
    sqlite3.SQLITE_FULL: "Make room there, or set PARROT_DATA, or --data, to another folder.",
}
_USUAL_ADVICE = "Set PARROT_DATA, or --data, to a folder that can be written."
_NAME_LENGTH = 64
_BUSY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who is billed, limited and isolated."""

    name: TenantId
    limits: Limits
    created: float = 0.0
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is listed, without its text."""

    id: str
    tenant: TenantId
    label: str
    operator: bool
    """Whether it also gives access to what belongs to all tenants: metrics, engines and usage."""
    created: float
    revoked: float | None
    hash: bytes


@dataclass(frozen=True, slots=True)
class Published:
    """A constant text whose KV all tenants share."""

    id: str
    text: str
    created: float


class TenantStore:
    """The file in a data folder, created if it does not exist, readable by its owner only.

    Raises `ServiceUnavailable` if the file cannot be opened, read or written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Created here, because SQLite would use the umask's permissions; its WAL gets those of the file.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self._db = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise
        except (OSError, sqlite3.Error) as error:
            why = getattr(error, "strerror", None) or error
            advice = _ADVICE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, _USUAL_ADVICE)
            raise ServiceUnavailable(f"The tenants in {self.path} cannot be opened: {why}. {advice}") from error
        self._seen = self._version()
        self._revision = self._read_revision()

    def _prepare(self) -> None:
        ((form,),) = self._db.execute("PRAGMA user_version").fetchall()
        if form > _FORM:
            raise ServiceUnavailable(
                f"The tenants in {self.path} were written by a later version of Parrot. Install that, or set "
                "PARROT_DATA, or --data, to another folder."
            )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA foreign_keys = ON")
        self._db.executescript(_SCHEMA)
        if form < _FORM:
            self._db.execute(f"PRAGMA user_version = {_FORM}")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def changed(self) -> bool:
        """Whether anything but usage was written since the last call, above all by other processes: writes of this
        object alone do not count. Takes microseconds."""
        version = self._version()
        if version == self._seen:
            return False
        known, self._revision = self._revision, self._read_revision()
        self._seen = version  # only now: if the revision could not be read, the change has not been seen
        return known != self._revision

    # --- Tenants and keys ------------------------------------------------------------------------------------

    def tenants(self) -> list[Tenant]:
        """All tenants by name."""
        rows = self._rows("SELECT name, limits, created FROM tenants ORDER BY name")
        return [Tenant(TenantId(name), Limits.from_json(limits), created) for name, limits, created in rows]

    def tenant(self, name: str) -> Tenant:
        """One tenant. Raises `UnknownObject`."""
        found = next((tenant for tenant in self.tenants() if tenant.name == name), None)
        if name == LOCAL_TENANT:
            raise UnknownObject(
                f"{name!r} is the built-in tenant of services without keys: it has no keys and no limits."
            )
        if found is None:
            raise UnknownObject(f"There is no tenant {name!r}; `parrot tenant list` shows all.")
        return found

    def create_tenant(self, name: str, limits: Limits) -> None:
        """Add a tenant. Raises `DeclarationError` for a name that is taken or not valid."""
        plain = name.replace("-", "").replace("_", "").replace(".", "")
        if not (plain.isascii() and plain.isalnum() and len(name) <= _NAME_LENGTH):
            raise DeclarationError(f"A tenant's name is letters, digits, '-', '_' and '.', at most {_NAME_LENGTH}.")
        if name == LOCAL_TENANT:
            raise DeclarationError(f"{name!r} is the built-in tenant of services without keys; choose another name.")
        with self._writing():
            if self._db.execute("SELECT 1 FROM tenants WHERE name = ?", (name,)).fetchone():
                raise DeclarationError(
                    f"There is a tenant {name!r} already; `parrot tenant limits` changes its limits."
                )
            self._db.execute("INSERT INTO tenants VALUES (?, ?, ?)", (name, time.time(), limits.to_json()))

    def set_limits(self, name: str, limits: Limits) -> None:
        """Change a tenant's limits. Raises `UnknownObject`."""
        with self._writing():
            self.tenant(name)
            self._db.execute("UPDATE tenants SET limits = ? WHERE name = ?", (limits.to_json(), name))

    def keys(self, tenant: str | None = None) -> list[Key]:
        """All keys, or those of a tenant, including revoked ones, in the order they were made."""
        rows = self._rows("SELECT id, tenant, label, operator, created, revoked, hash FROM keys ORDER BY created")
        return [
            Key(name, TenantId(owner), label, bool(operator), *rest)
            for name, owner, label, operator, *rest in rows
            if tenant in (None, owner)
        ]

    def create_key(self, tenant: str, *, label: str = "", operator: bool = False) -> tuple[str, str]:
        """Make a key for a tenant; returns its id and its text, which is not kept. Raises `UnknownObject`."""
        key = make_key()
        with self._writing():
            self.tenant(tenant)
            row = (key.id, key.hash, tenant, label, operator, time.time())
            self._db.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, NULL)", row)
        return key.id, key.text

    def revoke_key(self, key: str) -> Key:
        """Revoke a key, given by its id or its text; doing so twice is fine. Raises `UnknownObject`."""
        with self._writing():
            found = next((one for one in self.keys() if one.id == key or one.hash == hash_key(key)), None)
            if found is None:
                raise UnknownObject("There is no such key; `parrot key list` shows all.")
            self._db.execute("UPDATE keys SET revoked = coalesce(revoked, ?) WHERE id = ?", (time.time(), found.id))
        return found

    # --- Published texts -------------------------------------------------------------------------------------

    def published(self) -> list[Published]:
        """All published texts, in the order they were published."""
        return [Published(*row) for row in self._rows("SELECT id, text, created FROM published ORDER BY created")]

    def publish(self, text: str) -> str:
        """Publish a constant text; returns its id. Doing so twice is fine. Raises `DeclarationError` if it is empty."""
        if not text.strip():
            raise DeclarationError("There is nothing to publish: the text is empty.")
        identity = f"p-{hash_key(text).hex()[:12]}"
        with self._writing():
            self._db.execute("INSERT OR IGNORE INTO published VALUES (?, ?, ?)", (identity, text, time.time()))
        return identity

    def unpublish(self, identity: str) -> None:
        """Remove a published text. Raises `UnknownObject`."""
        with self._writing():
            if self._db.execute("DELETE FROM published WHERE id = ?", (identity,)).rowcount == 0:
                raise UnknownObject(f"There is no published text {identity!r}; `parrot publish` lists all.")

    # --- Usage -----------------------------------------------------------------------------------------------

    def add_usage(self, day: str, used: Mapping[TenantId, Usage], *, wait: bool = True) -> None:
        """Add to what tenants used on a day. Thread-safe. Does not wait for the disk: a power failure may lose the last
        additions. Without `wait` it fails at once if another process is writing."""
        rows = [
            (tenant, day, one.requests, one.prompt_tokens, one.cached_tokens, one.output_tokens, one.seconds)
            for tenant, one in used.items()
        ]
        with self._beside("written", patience=_BUSY_SECONDS if wait else 0.0) as db:
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("BEGIN IMMEDIATE")
            db.executemany(
                "INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "requests = requests + excluded.requests, prompt = prompt + excluded.prompt, "
                "cached = cached + excluded.cached, output = output + excluded.output, "
                "seconds = seconds + excluded.seconds",
                rows,
            )
            db.execute("COMMIT")

    def usage(self, tenant: str | None = None) -> list[tuple[str, TenantId, Usage]]:
        """What each tenant, or the one given, used on each day, in order of days. Thread-safe."""
        with self._beside("read", patience=_BUSY_SECONDS) as db:
            rows = db.execute(
                "SELECT day, tenant, requests, prompt, cached, output, seconds FROM usage "
                "WHERE ?1 IS NULL OR tenant = ?1 ORDER BY day, tenant",
                (tenant,),
            ).fetchall()
        return [(day, TenantId(name), Usage(*row)) for day, name, *row in rows]

    # --- Inside ----------------------------------------------------------------------------------------------

    def _version(self) -> int:
        ((version,),) = self._rows("PRAGMA data_version")
        return version

    def _rows(self, query: str) -> list[Any]:
        try:
            return self._db.execute(query).fetchall()
        except sqlite3.Error as error:
            raise ServiceUnavailable(f"The tenants in {self.path} cannot be read: {error}.") from error

    def _read_revision(self) -> tuple[int, int]:
        """The revisions of the schema and of the tables' contents."""
        ((form,),), ((content,),) = self._rows("PRAGMA schema_version"), self._rows("SELECT number FROM revision")
        return form, content

    @contextlib.contextmanager
    def _beside(self, what: str, *, patience: float) -> Generator[sqlite3.Connection]:
        """A connection of its own, so that the thread that looks up keys never waits for it."""
        try:
            there = f"{self.path.absolute().as_uri()}?mode=rw"  # a removed file is not made anew: others could read it
            with contextlib.closing(sqlite3.connect(there, uri=True, timeout=patience, isolation_level=None)) as db:
                yield db
        except sqlite3.Error as error:
            raise ServiceUnavailable(f"The tenants in {self.path} cannot be {what}: {error}.") from error

    @contextlib.contextmanager
    def _writing(self) -> Generator[None]:
        """One transaction, which is the only writer from its first read on."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise ServiceUnavailable(f"The tenants in {self.path} cannot be written: {error}.") from error
