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

_V2 = """
-- Whether the archive still lists it (model.Presence); the start of the first complete crawl that lacked it, by the
-- archive's clock; the run that is to take it out of the mirror, or null, and why; 1: its files are on their way.
ALTER TABLE series ADD COLUMN presence TEXT NOT NULL DEFAULT 'present';
ALTER TABLE series ADD COLUMN missing_since INTEGER;
ALTER TABLE series ADD COLUMN leaving TEXT;
ALTER TABLE series ADD COLUMN leaving_why TEXT;
ALTER TABLE series ADD COLUMN moving INTEGER NOT NULL DEFAULT 0;
-- 1: the archive tells of a change; which held instances it means is still to be found out.
ALTER TABLE series ADD COLUMN doubted INTEGER NOT NULL DEFAULT 0;
-- When every file of it was last read and compared with its SHA-256; 0: never since it came.
ALTER TABLE series ADD COLUMN verified_at INTEGER NOT NULL DEFAULT 0;
CREATE INDEX series_by_directory ON series (directory);
CREATE INDEX series_in_collection ON series (collection, id);
CREATE INDEX series_by_verified ON series (verified_at, id);
CREATE INDEX series_to_do ON series (collection, crawl) WHERE state <> 'complete';
CREATE INDEX series_by_leaving ON series (leaving, id) WHERE leaving IS NOT NULL;

-- 1: held, and the archive may have other bytes for it: to be fetched and compared.
ALTER TABLE instances ADD COLUMN doubted INTEGER NOT NULL DEFAULT 0;
-- The first run whose list lacked it though list and count agreed; null while it is listed.
ALTER TABLE instances ADD COLUMN unlisted_by TEXT;

-- The last crawl that brought the study, where a since-call named it there.
ALTER TABLE studies ADD COLUMN named INTEGER;
-- 1: everything that the run was to fetch of the collection is complete.
ALTER TABLE crawls ADD COLUMN complete INTEGER NOT NULL DEFAULT 0;
-- Where it was asked; "": a crawl from before this was written down.
ALTER TABLE crawls ADD COLUMN server TEXT NOT NULL DEFAULT '';

-- model.Watermark of a collection at a server, under a scope (its fingerprint).
CREATE TABLE watermarks (
    server TEXT NOT NULL,
    collection TEXT NOT NULL,
    scope TEXT NOT NULL,
    at INTEGER NOT NULL,
    whole_at INTEGER,
    PRIMARY KEY (server, collection, scope)
) WITHOUT ROWID;

-- model.HistoryEntry, in the order in which things happened.
CREATE TABLE history (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    run TEXT NOT NULL,
    what TEXT NOT NULL,
    why TEXT NOT NULL,
    collection TEXT NOT NULL,
    series_instance_uid TEXT NOT NULL,
    sop_instance_uid TEXT,
    instances INTEGER,
    bytes INTEGER,
    old_sha256 BLOB,
    sha256 BLOB,
    retired TEXT
);
CREATE INDEX history_by_series ON history (series_instance_uid);
CREATE INDEX history_by_collection ON history (collection COLLATE NOCASE);
CREATE INDEX history_by_instance ON history (sop_instance_uid) WHERE sop_instance_uid IS NOT NULL;
CREATE INDEX history_by_damage ON history (id) WHERE what = 'damaged';
"""

_V3 = """
-- For those who ask for the series of a patient or study and name no collection, as most clients do.
CREATE INDEX series_by_patient ON series (patient_id COLLATE NOCASE, study_instance_uid);
CREATE INDEX series_by_study ON series (study_instance_uid);
"""

MIGRATIONS: tuple[str, ...] = (_V1, _V2, _V3)


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
