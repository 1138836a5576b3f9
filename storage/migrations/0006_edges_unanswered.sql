-- Calls that were sent, failed, and show at no server.
ALTER TABLE edges_${level} ${on_cluster} ADD COLUMN IF NOT EXISTS unanswered SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)) AFTER unsent;
