-- SampleRate as a whole number, halves upwards: ClickStack reads a rate of 12.5 as 1.
ALTER TABLE otel_traces ${on_cluster} ADD COLUMN IF NOT EXISTS SampleWeight UInt64 DEFAULT toUInt64(greatest(floor(SampleRate + 0.5), 1)) CODEC(T64, ZSTD(1)) AFTER SampleRate;
