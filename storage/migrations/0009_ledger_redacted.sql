-- How many attributes of a pane were dropped, hashed or masked before they were stored, and texts masked.
ALTER TABLE ledger ${on_cluster} ADD COLUMN IF NOT EXISTS redacted UInt64 CODEC(T64, ZSTD(1));
