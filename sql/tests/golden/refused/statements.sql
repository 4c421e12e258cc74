SELECT * FROM flights
----
CREATE VIEW v AS SELECT * FROM flights
----
CREATE OR REPLACE TABLE t (a INT) WITH ('connector' = 'blackhole')
----
CREATE TABLE flights (a INT) WITH ('connector' = 'blackhole')
----
CREATE TABLE t (a INT, PRIMARY KEY (a) NOT ENFORCED) WITH ('connector' = 'blackhole')
----
CREATE TABLE t (a INT PRIMARY KEY) WITH ('connector' = 'blackhole')
----
CREATE TABLE t (a INT, b AS a + 1) WITH ('connector' = 'blackhole')
----
CREATE TABLE t (a INT METADATA FROM 'offset') WITH ('connector' = 'blackhole')
----
CREATE TABLE t (a INT, a BIGINT) WITH ('connector' = 'blackhole')
----
CREATE TABLE t (a MAP<INT, INT>) WITH ('connector' = 'blackhole')
----
CREATE TABLE t (a TIMESTAMP(4)) WITH ('connector' = 'blackhole')
----
CREATE TABLE t (a TIMESTAMP(3) WITH LOCAL TIME ZONE) WITH ('connector' = 'blackhole')
----
CREATE TABLE t (a DECIMAL(39, 2)) WITH ('connector' = 'blackhole')
----
CREATE TABLE t (a VARCHAR) WITH ('connector' = 'blackhole')
----
CREATE TABLE t (a INTT) WITH ('connector' = 'blackhole')
----
CREATE TABLE t (a INT) PARTITIONED BY (a) WITH ('connector' = 'blackhole')
----
CREATE TABLE t (a INT)
----
CREATE TABLE t (a INT) WITH ()
----
CREATE TABLE t (a INT) WITH ('connector' = 'kafka')
----
CREATE TABLE t (a INT) WITH ('connector' = 'filesytem', 'path' = '/x')
----
CREATE TABLE t (a INT) WITH ('conector' = 'blackhole')
----
CREATE TABLE t (a INT) WITH ('connector' = 'filesystem', 'format' = 'csv')
----
CREATE TABLE t (a INT) WITH ('connector' = 'filesystem', 'path' = '/x')
----
CREATE TABLE t (a INT) WITH ('connector' = 'filesystem', 'path' = '/x', 'format' = 'parquet')
----
CREATE TABLE t (a INT) WITH ('connector' = 'filesystem', 'path' = 's3://bucket/x', 'format' = 'csv')
----
CREATE TABLE t (a INT) WITH ('connector' = 'filesystem', 'path' = '/x', 'format' = 'json', 'csv.header' = 'true')
----
CREATE TABLE t (a INT) WITH ('connector' = 'filesystem', 'path' = '/x', 'format' = 'csv', 'csv.header' = 'yes')
----
CREATE TABLE t (a INT) WITH ('connector' = 'filesystem', 'path' = '/x', 'format' = 'csv', 'csv.field-delimiter' = '||')
----
CREATE TABLE t (a INT) WITH ('connector' = 'filesystem', 'path' = '/x', 'format' = 'csv', 'scan.rows-per-second' = 'fast')
----
CREATE TABLE t (a INT) WITH ('connector' = 'filesystem', 'path' = '/x', 'format' = 'csv', 'path' = '/y')
----
CREATE TABLE t (a INT) WITH ('connector' = 'blackhole', 'sink.parallelism' = '0')
----
CREATE TABLE t (a INT) WITH ('connector' = 'nexmark')
----
CREATE TABLE t (auction INT) WITH ('connector' = 'nexmark', 'nexmark.table-type' = 'bid')
----
CREATE TABLE t (autcion BIGINT) WITH ('connector' = 'nexmark', 'nexmark.table-type' = 'bid')
----
CREATE TABLE t (auction BIGINT) WITH ('connector' = 'nexmark', 'nexmark.table-type' = 'bids')
----
CREATE TABLE t (auction BIGINT) WITH ('connector' = 'nexmark', 'nexmark.table-type' = 'bid', 'nexmark.event' = '5')
----
CREATE TABLE t (auction BIGINT) WITH ('connector' = 'nexmark', 'nexmark.table-type' = 'bid');
INSERT INTO t SELECT flight FROM flights
----
CREATE TABLE t (a TIMESTAMP(3), WATERMARK FOR b AS a) WITH ('connector' = 'blackhole')
----
CREATE TABLE t (a BIGINT, WATERMARK FOR a AS a) WITH ('connector' = 'blackhole')
----
CREATE TABLE t (a TIMESTAMP(9), WATERMARK FOR a AS a) WITH ('connector' = 'blackhole')
----
CREATE TABLE t (a TIMESTAMP(3), WATERMARK FOR a AS 5) WITH ('connector' = 'blackhole')
----
CREATE TABLE t (a TIMESTAMP(3), WATERMARK FOR a AS a, WATERMARK FOR a AS a) WITH ('connector' = 'blackhole')
----
CREATE TABLE t (a INT,) WITH ('connector' = 'blackhole')
----
CREATE TABLE t (a INT) WITH ('connector' = 'blackhole', 'sink.parallelism' = '129'); INSERT INTO t SELECT distance FROM flights
----
DROP TABLE nowhere
----
DROP VIEW v
----
SET parallelism.default = 4
----
SET 'parallelism.default' = 'many'
----
SET 'pipeline.max-parallelism' = '2'; INSERT INTO counts SELECT origin, flight FROM flights
----
BEGIN STATEMENT SET; INSERT INTO counts SELECT origin, flight FROM flights; END
----
EXPLAIN SELECT * FROM flights
----
DELETE FROM counts
----
'what is this'
----
INSERT INTO counts SELECT origin, flight FROM flights INSERT INTO counts SELECT dest, flight FROM flights
