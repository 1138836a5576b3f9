-- One statement a block: what clients send to the port that reads. Blocks begin with the client's name.
-- clickhouse-connect: start
SELECT version(), timezone()
-- clickhouse-connect: settings
SELECT name, value, readonly as readonly FROM system.settings LIMIT 10000
-- clickhouse-connect: types
SELECT name, value FROM system.settings WHERE name LIKE '%json%'
-- clickhouse-connect: a query's columns
SELECT count() FROM otel_traces FORMAT Native
-- clickhouse-go: hello
SELECT displayName(), version(), revision(), timezone()
-- clickhouse-go: ping
SELECT 1
-- grafana: databases
SHOW DATABASES
-- grafana: tables
SHOW TABLES FROM "default"
-- grafana: columns
DESC TABLE "default"."otel_traces"
-- grafana: columns of all
SELECT name, type, table FROM system.columns WHERE database IN ('default') AND table = 'otel_logs'
-- grafana: functions
SELECT name, is_aggregate, case_insensitive, alias_to, origin, description, syntax, arguments, returned_value, examples, categories FROM system.functions LIMIT 5
-- grafana: keys of a map
SELECT DISTINCT arrayJoin(mapKeys("SpanAttributes")) as keys FROM (SELECT "SpanAttributes" FROM default.otel_traces LIMIT 100000) LIMIT 1000
-- grafana: values
SELECT DISTINCT "ServiceName" FROM default.otel_traces WHERE "ServiceName" IS NOT NULL LIMIT 1000
-- grafana: values of a map
SELECT DISTINCT "SpanAttributes"['k'] FROM default.otel_traces WHERE mapContains("SpanAttributes", 'k') LIMIT 1000
-- grafana: column aliases
SELECT name AS alias, name AS select, type AS "type" FROM system.columns LIMIT 1
-- grafana: ad hoc filter on a table
SELECT count() FROM otel_traces settings additional_table_filters={'otel_traces' : ' ServiceName = \'a\' AND SpanAttributes[\'k\'] REGEXP \'..\' '}
-- grafana: ad hoc filter on the views
SELECT sum(requests) FROM red settings additional_table_filters={'red' : ' service = \'a\' '}
-- grafana: ad hoc filter on edges
SELECT sum(calls) FROM default.edges AS e settings additional_table_filters={'default.edges' : ' client_service = \'a\' OR server_service IN (\'b\') '}
-- grafana: JSON types within ten seconds
SELECT count() FROM otel_logs SETTINGS max_execution_time=10
-- grafana: trace search
SELECT "TraceId" as traceID, "ServiceName" as serviceName, "SpanName" as operationName, "Timestamp" as startTime, multiply("Duration", 0.000001) as duration FROM "default"."otel_traces" WHERE ( Timestamp >= toDateTime(1) AND Timestamp <= fromUnixTimestamp64Milli(1000) ) AND ( ParentSpanId = '' ) AND ( Duration > 0 ) ORDER BY Timestamp DESC, Duration DESC LIMIT 1000
-- grafana: trace by id
WITH 'abc' as __gf_trace_id, (SELECT min(Start) FROM "default"."otel_traces_trace_id_ts" WHERE TraceId = __gf_trace_id) as __gf_trace_start, (SELECT max(End) + 1 FROM "default"."otel_traces_trace_id_ts" WHERE TraceId = __gf_trace_id) as __gf_trace_end SELECT "TraceId" as traceID, multiply(toUnixTimestamp64Nano("Timestamp"), 0.000001) as startTime, arrayMap(key -> map('key', key, 'value',"SpanAttributes"[key]), mapKeys("SpanAttributes")) as tags, if("StatusCode" IN ('Error','STATUS_CODE_ERROR'), 2, 0) as statusCode, arrayMap((name,timestamp,attributes) -> tuple(name, toString(timestamp), arrayMap(key -> map('key', key, 'value', attributes[key]), mapKeys(attributes)))::Tuple(name String, timestamp String, fields Array(Map(String, String))), "Events".Name, "Events".Timestamp, "Events".Attributes) AS logs FROM "default"."otel_traces" WHERE traceID = __gf_trace_id AND "Timestamp" >= __gf_trace_start AND "Timestamp" <= __gf_trace_end
-- grafana: logs
SELECT Timestamp as "timestamp", Body as "body", SeverityText as "level", TraceId as "traceID", ResourceAttributes, ScopeAttributes, LogAttributes FROM "default"."otel_logs" ORDER BY (TimestampTime, timestamp) DESC LIMIT 1000
-- grafana: logs volume
SELECT toStartOfInterval("TimestampTime", INTERVAL 1 MINUTE) as "time", sum(multiSearchAny(toString("SeverityText"), ['critical','fatal'])) as critical FROM "default"."otel_logs" GROUP BY time ORDER BY time
-- grafana: counters
SELECT slot, requests - lagInFrame(requests) OVER (PARTITION BY service ORDER BY slot ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS rate FROM red
-- grafana: heatmap
SELECT count() FROM otel_traces WHERE cityHash64(SpanId) % 500 = 0
-- meshflow's dashboard: quantiles
SELECT toStartOfInterval(toDateTime(slot), INTERVAL 10 second) AS time, service, quantileOfHistogram(sumMap(t.duration_histogram), 0.99) / 1e6 AS "p99" FROM red AS t WHERE slot >= toDateTime(0) AND service IN ('a') GROUP BY time, service ORDER BY time
-- jdbc: catalogs and schemas
SELECT name AS TABLE_SCHEM, '' AS TABLE_CATALOG FROM system.databases WHERE name LIKE '%' ORDER BY name
-- jdbc: tables
SELECT '' AS TABLE_CAT, t.database AS TABLE_SCHEM, t.name AS TABLE_NAME, CASE WHEN t.engine LIKE '%Log' THEN 'LOG TABLE' WHEN t.engine IN ('View') THEN 'VIEW' ELSE 'TABLE' END AS TABLE_TYPE, '' AS REMARKS, null AS TYPE_CAT, d.engine AS TYPE_NAME FROM system.tables t JOIN system.databases d ON t.database = d.name WHERE t.database LIKE 'default' AND t.name LIKE '%' ORDER BY t.database, t.name
-- jdbc: columns
SELECT '' AS TABLE_CAT, database AS TABLE_SCHEM, table AS TABLE_NAME, name AS COLUMN_NAME, toInt32(multiIf(startsWith(type, 'Nullable('), 1, 0)) AS NULLABLE, position AS ORDINAL_POSITION FROM system.columns WHERE database LIKE 'default' AND table LIKE 'red' AND name LIKE '%' ORDER BY TABLE_SCHEM, TABLE_NAME, ORDINAL_POSITION
-- jdbc: types
SELECT name AS TYPE_NAME, case_insensitive, alias_to FROM system.data_type_families
-- jdbc: information schema
SELECT table_schema, table_name, table_type FROM information_schema.tables WHERE table_schema = 'default'
-- jdbc: describe a query
DESC (SELECT * FROM red)
-- jdbc: functions
SELECT name, is_aggregate FROM system.functions WHERE name LIKE 'to%' SETTINGS max_result_rows = 0
-- dbeaver: server
SELECT currentUser(), hostName(), uptime(), currentDatabase()
-- hyperdx: table's metadata
SELECT * FROM system.tables where database = {database:String} AND name = {table:String}
-- hyperdx: columns
DESCRIBE {database:Identifier}.{table:Identifier}
-- hyperdx: skip indices
SELECT name, type_full AS type, expr AS expression, granularity FROM system.data_skipping_indices WHERE database = {database:String} AND table = {table:String}
-- hyperdx: setting names
SELECT name, value FROM system.settings WHERE name IN ('max_rows_to_read', 'read_overflow_mode')
-- hyperdx: map keys
WITH sampledKeys as (SELECT SpanAttributes.keys as keysArr FROM {database:Identifier}.{table:Identifier} LIMIT 1000) SELECT DISTINCT arrayJoin(keysArr) as key FROM sampledKeys LIMIT 100
-- hyperdx: chart
SELECT toStartOfInterval(toDateTime(Timestamp), INTERVAL 1 minute) AS `__hdx_time_bucket`, count(), quantile(0.95)(Duration) AS `95th quantile`, countIf(StatusCode = 'Error') FROM default.otel_traces WHERE (Timestamp >= fromUnixTimestamp64Milli(1)) AND lower(SpanName) LIKE lower('%a%') GROUP BY `__hdx_time_bucket` ORDER BY `__hdx_time_bucket` SETTINGS short_circuit_function_evaluation = 'force_enable', optimize_read_in_order = 0
-- people: heredocs, comments, odd names
SELECT $$it's$$ AS `a'b "c"` /* a 'comment */ -- with `quotes
-- people: explain
EXPLAIN indexes = 1 SELECT count() FROM otel_traces WHERE ServiceName = 'a'
-- people: apply
SELECT * APPLY(toString) FROM ledger LIMIT 1
-- people: combinators
SELECT uniqExactIf(service, requests > 0), sumMap(duration_histogram), argMax(service, slot), COUNT(DISTINCT service) FROM red
-- people: common expressions
WITH x AS (SELECT service FROM red GROUP BY service), 2 AS two, (y -> y + two) AS more SELECT more(count()) FROM x WHERE service NOT IN (SELECT server_service FROM edges) AND service IN x
-- people: show a table
SHOW CREATE TABLE red_10s
-- people: parts
SELECT table, sum(rows), formatReadableSize(sum(bytes_on_disk)) FROM system.parts WHERE active GROUP BY table
