-- What learning from traffic remembers.

-- Readers go on behind the last row that they have seen, so the number of a removed row never comes again.
CREATE TABLE kept_feedback AS SELECT * FROM feedback;

DROP TABLE feedback;

ALTER TABLE exchanges RENAME TO kept_exchanges;

CREATE TABLE exchanges (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    reply TEXT NOT NULL,
    at REAL NOT NULL,
    task INTEGER NOT NULL REFERENCES tasks,
    policy INTEGER REFERENCES policies,  -- NULL where no such policy is stored: the content names it
    content BLOB NOT NULL
) STRICT;

INSERT INTO exchanges SELECT id, reply, at, task, policy, content FROM kept_exchanges;

DROP TABLE kept_exchanges;

CREATE INDEX exchanges_of_reply ON exchanges (reply);

CREATE INDEX exchanges_of_task ON exchanges (task);

CREATE TABLE feedback (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    exchange INTEGER NOT NULL REFERENCES exchanges,
    task INTEGER NOT NULL REFERENCES tasks,  -- the exchange's
    at REAL NOT NULL,
    content BLOB NOT NULL
) STRICT;

INSERT INTO feedback
    SELECT kept_feedback.id, exchange, task, kept_feedback.at, kept_feedback.content
    FROM kept_feedback JOIN exchanges ON exchanges.id = exchange;

DROP TABLE kept_feedback;

CREATE INDEX feedback_on_exchange ON feedback (exchange);

CREATE INDEX feedback_of_task ON feedback (task);

CREATE TABLE cursors (
    task INTEGER NOT NULL REFERENCES tasks,
    name TEXT NOT NULL,
    upto INTEGER NOT NULL,
    PRIMARY KEY (task, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE banked (
    id INTEGER PRIMARY KEY,
    task INTEGER NOT NULL REFERENCES tasks,
    digest ANY NOT NULL,
    key TEXT NOT NULL,
    side TEXT NOT NULL,
    at REAL NOT NULL,
    last_at REAL NOT NULL,
    count INTEGER NOT NULL,
    quarantine TEXT NOT NULL,
    opened TEXT NOT NULL DEFAULT '',
    is_free INTEGER AS (quarantine = '' AND opened = ''),
    "case" BLOB NOT NULL,  -- without its target
    target BLOB,
    latest BLOB NOT NULL,  -- how it was last answered
    UNIQUE (task, digest)
) STRICT;

CREATE INDEX banked_by_time ON banked (task, side, is_free, last_at);

CREATE INDEX banked_opened ON banked (task, opened, digest) WHERE opened <> '';

CREATE INDEX banked_of_key ON banked (key);

CREATE TABLE repairs (
    id INTEGER PRIMARY KEY,
    task INTEGER NOT NULL REFERENCES tasks,
    digest ANY NOT NULL,
    key TEXT NOT NULL,
    at REAL NOT NULL,
    content BLOB NOT NULL,
    UNIQUE (task, digest)
) STRICT;

CREATE INDEX repairs_by_time ON repairs (task, at);

CREATE TABLE probes (
    id INTEGER PRIMARY KEY,
    task INTEGER NOT NULL REFERENCES tasks,
    at REAL NOT NULL,
    digest ANY NOT NULL,
    content BLOB NOT NULL,
    UNIQUE (task, at, digest)
) STRICT;

CREATE TABLE tallies (
    task INTEGER NOT NULL REFERENCES tasks,
    hour INTEGER NOT NULL,
    policy ANY NOT NULL,
    arm TEXT NOT NULL,
    requests INTEGER NOT NULL,
    known INTEGER NOT NULL,
    "right" REAL NOT NULL,
    corrected INTEGER NOT NULL,
    failed_open INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    calls INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cost_usd REAL,  -- NULL without a price
    added_ms REAL NOT NULL,
    PRIMARY KEY (task, hour, policy, arm)
) STRICT, WITHOUT ROWID;

CREATE TABLE leases (  -- one that was given back stays, with its token: the next one's is larger
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    token INTEGER NOT NULL,
    until REAL NOT NULL
) STRICT, WITHOUT ROWID;
