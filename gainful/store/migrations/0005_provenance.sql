-- Who said what is known of a case now, beside who brought it: words of one caller may be judged by another.
ALTER TABLE banked ADD COLUMN latest_key TEXT NOT NULL DEFAULT '';  -- of how it was last answered, and judged

ALTER TABLE banked ADD COLUMN target_key TEXT NOT NULL DEFAULT '';  -- of the right answer that a caller told

UPDATE banked SET latest_key = key, target_key = key;

CREATE INDEX banked_latest_of_key ON banked (latest_key);

CREATE INDEX banked_target_of_key ON banked (target_key);

-- How something stands now, each in place of what was said of it before.
CREATE TABLE standing (
    task INTEGER NOT NULL REFERENCES tasks,
    name TEXT NOT NULL,
    at REAL NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (task, name)
) STRICT, WITHOUT ROWID;
