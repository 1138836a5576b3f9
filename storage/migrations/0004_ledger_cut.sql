-- How many attribute sets and texts of a pane were over processing.attributes.
ALTER TABLE ledger ${on_cluster} ADD COLUMN IF NOT EXISTS cut UInt64 CODEC(T64, ZSTD(1));
