-- Whether a key has tasks of its own, apart from all others'.
ALTER TABLE keys ADD COLUMN own_task INTEGER NOT NULL DEFAULT 0;
