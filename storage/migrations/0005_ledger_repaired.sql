-- How many texts of a pane were not UTF-8, and attribute values nested too deep: stored, but for what is wrong with them.
ALTER TABLE ledger ${on_cluster} ADD COLUMN IF NOT EXISTS repaired UInt64 CODEC(T64, ZSTD(1));
