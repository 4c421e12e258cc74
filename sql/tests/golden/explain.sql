CREATE TABLE bids (auction BIGINT, price BIGINT, date_time TIMESTAMP(3), WATERMARK FOR date_time AS date_time)
WITH ('connector' = 'nexmark', 'nexmark.table-type' = 'bid');
CREATE TABLE highest (auction BIGINT, price BIGINT) WITH ('connector' = 'blackhole', 'sink.parallelism' = '1');
EXPLAIN PLAN FOR INSERT INTO highest
SELECT auction, MAX(price) FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(date_time), INTERVAL '10' SECOND))
GROUP BY window_start, window_end, auction
