-- Data points that went into tables of counters, that were left out, and of the former those that added nothing, as their past is not known.
ALTER TABLE ledger ${on_cluster}
    ADD COLUMN IF NOT EXISTS aggregated UInt64 CODEC(T64, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS left_out UInt64 CODEC(T64, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS unknown UInt64 CODEC(T64, ZSTD(1));
