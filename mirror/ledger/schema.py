"""Tables of the ledger and the migrations that made them.

The version is SQLite's `user_version`: the number of migrations applied. A ledger with a higher number than this
code knows is refused (TooNew); a lower one is migrated inside one transaction per step, so that a crash in between
leaves either the old or the new version, never a mixture.
"""

from __future__ import annotations

import sqlite3

from mirror.errors import TooNew

_V1 = """
-- Facts about the mirror itself: server, dialect, layout, created_at, changes, exported.
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- One row per crawl of one collection under one scope. finished_at is null until every row of it is in, synced_at
-- until the run that made the crawl has come to its end.
CREATE TABLE crawls (
    id INTEGER PRIMARY KEY,
    collection TEXT NOT NULL,
    scope TEXT NOT NULL,
    run TEXT NOT NULL DEFAULT '',
    started_at INTEGER NOT NULL,
    finished_at INTEGER,
    synced_at INTEGER
);

CREATE TABLE patients (
    collection TEXT NOT NULL,
    patient_id TEXT NOT NULL,
    raw TEXT NOT NULL,
    crawl INTEGER NOT NULL,
    PRIMARY KEY (collection, patient_id)
) WITHOUT ROWID;

CREATE TABLE studies (
    collection TEXT NOT NULL,
    patient_id TEXT NOT NULL,
    study_instance_uid TEXT NOT NULL,
    raw TEXT NOT NULL,
    crawl INTEGER NOT NULL,
    PRIMARY KEY (study_instance_uid, collection, patient_id)
) WITHOUT ROWID;
CREATE INDEX studies_by_collection ON studies (collection COLLATE NOCASE, patient_id);

CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    series_instance_uid TEXT NOT NULL UNIQUE,
    collection TEXT NOT NULL,
    patient_id TEXT NOT NULL,
    study_instance_uid TEXT NOT NULL,
    modality TEXT,
    body_part_examined TEXT,
    manufacturer TEXT,
    image_count INTEGER,
    file_size INTEGER,
    max_submission_timestamp TEXT,
    date_released TEXT,
    raw TEXT NOT NULL,              -- the canonical row, every field the archive gave
    crawl INTEGER NOT NULL,         -- last crawl that saw it
    directory TEXT NOT NULL,        -- below the root, with forward slashes
    state TEXT NOT NULL,            -- model.SeriesState
    why TEXT NOT NULL,              -- model.Why
    planned_by TEXT,                -- run that is to fetch it, or null
    listing INTEGER NOT NULL DEFAULT 0,   -- number of the newest listing of its instances
    findings TEXT NOT NULL DEFAULT '[]',
    judged_at INTEGER
);
CREATE INDEX series_by_collection ON series (collection COLLATE NOCASE, patient_id, study_instance_uid);
CREATE INDEX series_by_run ON series (planned_by, id) WHERE planned_by IS NOT NULL;

-- An instance is listed when the archive names it, held when `name` is set: its file lies in the series' directory.
CREATE TABLE instances (
    series INTEGER NOT NULL REFERENCES series (id),
    sop_instance_uid TEXT NOT NULL,
    listing INTEGER NOT NULL,       -- newest listing that named it; 0: none did
    name TEXT,
    bytes INTEGER,
    sha256 BLOB,
    md5 BLOB,
    sop_class_uid TEXT,
    acquisition_number INTEGER,
    instance_number INTEGER,
    source TEXT,
    fetched_at INTEGER,
    verified TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_try INTEGER,
    finding TEXT,                   -- model.FindingKind of the last failure, and its words
    detail TEXT,
    PRIMARY KEY (series, sop_instance_uid)
) WITHOUT ROWID;

-- Which directory name belongs to whom. `key` is the path as a case-insensitive, normalising disk would see it.
CREATE TABLE directories (
    key TEXT PRIMARY KEY,
    path TEXT NOT NULL,
    identity TEXT NOT NULL
) WITHOUT ROWID;
"""

MIGRATIONS: tuple[str, ...] = (_V1,)


def check_version(connection: sqlite3.Connection, path: str) -> int:
    """The ledger's version. Raises TooNew for one from the future."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise TooNew(
            f"{path}: written by a newer tcia-mirror (ledger version {version}; this one knows up to {len(MIGRATIONS)})"
        )
    return int(version)


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring the ledger to the newest version. Safe to repeat; raises TooNew for one from the future."""
    version = check_version(connection, path)
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")
