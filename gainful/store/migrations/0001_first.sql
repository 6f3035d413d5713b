-- Ids and keys that are SHA-256 digests are 32-byte BLOBs, half the size of their hexadecimal text; any other
-- name is TEXT.  Columns that take both are ANY.

CREATE TABLE memo (
    id INTEGER PRIMARY KEY,  -- rows append in order of arrival: pages stay full, only the index is random
    key ANY NOT NULL UNIQUE,
    value BLOB NOT NULL
) STRICT;

CREATE TABLE policies (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    content BLOB NOT NULL
) STRICT;

CREATE TABLE tasks (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE attempts (
    id INTEGER PRIMARY KEY,
    task INTEGER NOT NULL REFERENCES tasks,
    policy INTEGER NOT NULL REFERENCES policies,
    "case" ANY NOT NULL,
    calls BLOB NOT NULL,  -- the memo keys of all calls, 32 bytes each, one after the other
    content BLOB NOT NULL,
    UNIQUE (policy, task, "case")
) STRICT;

CREATE TABLE ledger (
    key TEXT NOT NULL,
    seq INTEGER NOT NULL,
    kind TEXT NOT NULL,
    content TEXT NOT NULL,  -- canonical JSON
    previous BLOB NOT NULL,
    hash BLOB NOT NULL UNIQUE,
    created_at REAL NOT NULL,
    PRIMARY KEY (key, seq)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER ledger_is_never_rewritten BEFORE UPDATE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

CREATE TRIGGER ledger_is_never_shortened BEFORE DELETE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

CREATE TABLE champions (  -- the latest row of a task is its champion
    id INTEGER PRIMARY KEY,
    task INTEGER NOT NULL REFERENCES tasks,
    policy INTEGER NOT NULL REFERENCES policies,
    reason TEXT NOT NULL,
    ledger BLOB REFERENCES ledger (hash),
    created_at REAL NOT NULL
) STRICT;

CREATE INDEX champions_of_task ON champions (task);

CREATE TRIGGER champions_are_never_rewritten BEFORE UPDATE ON champions
BEGIN SELECT RAISE(ABORT, 'the history of champions is append-only'); END;

CREATE TRIGGER champions_are_never_forgotten BEFORE DELETE ON champions
BEGIN SELECT RAISE(ABORT, 'the history of champions is append-only'); END;

CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    run TEXT NOT NULL UNIQUE,
    task TEXT NOT NULL,
    spec TEXT NOT NULL,  -- canonical JSON
    finished INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL
) STRICT;

CREATE TABLE events (
    run INTEGER NOT NULL REFERENCES runs,
    seq INTEGER NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (run, seq)
) STRICT, WITHOUT ROWID;
