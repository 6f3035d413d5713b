-- What serving remembers.  A table only grows at its end: pages stay full.

CREATE TABLE exchanges (
    id INTEGER PRIMARY KEY,
    reply TEXT NOT NULL,
    at REAL NOT NULL,
    task INTEGER NOT NULL REFERENCES tasks,
    policy INTEGER REFERENCES policies,  -- NULL where no such policy is stored: the content names it
    content BLOB NOT NULL
) STRICT;

CREATE INDEX exchanges_of_reply ON exchanges (reply);

CREATE INDEX exchanges_of_task ON exchanges (task);

CREATE TABLE feedback (
    id INTEGER PRIMARY KEY,
    exchange INTEGER NOT NULL REFERENCES exchanges,
    at REAL NOT NULL,
    content BLOB NOT NULL
) STRICT;

CREATE INDEX feedback_on_exchange ON feedback (exchange);

CREATE TABLE trials (
    id INTEGER PRIMARY KEY,
    task INTEGER NOT NULL REFERENCES tasks,
    model TEXT NOT NULL,
    method TEXT NOT NULL,
    "case" ANY NOT NULL,
    source TEXT NOT NULL,
    content BLOB NOT NULL
) STRICT;

CREATE INDEX trials_of_task ON trials (task, model);

CREATE UNIQUE INDEX trials_on_cases ON trials (task, model, method, "case") WHERE source = 'cases';

CREATE TABLE detectors (  -- the latest row of a task and model is in use
    id INTEGER PRIMARY KEY,
    task INTEGER NOT NULL REFERENCES tasks,
    model TEXT NOT NULL,
    content BLOB NOT NULL,
    created_at REAL NOT NULL
) STRICT;

CREATE INDEX detectors_of_task ON detectors (task, model);

CREATE TABLE keys (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    sha256 BLOB NOT NULL UNIQUE,  -- of the secret, which is nowhere in here
    created_at REAL NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0,
    requests_per_minute INTEGER,
    own_data INTEGER NOT NULL DEFAULT 0
) STRICT;
