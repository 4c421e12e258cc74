SET 'parallelism.default' = '2';
SET 'pipeline.max-parallelism' = '32';
SET 'pipeline.name' = 'bids by auction and bidder';
SET 'execution.checkpointing.interval' = '1 s';

CREATE TEMPORARY TABLE bid (
  auction BIGINT, bidder BIGINT NOT NULL, price BIGINT COMMENT 'in cents', channel VARCHAR(100), url STRING,
  date_time TIMESTAMP(3), extra STRING,
  WATERMARK FOR date_time AS date_time - INTERVAL '4' SECOND
) COMMENT 'the stream of bids' WITH (
  'connector' = 'nexmark', 'nexmark.table-type' = 'bid', 'nexmark.seed' = '7', 'nexmark.events' = '1000000',
  'nexmark.events-per-second' = '50000', 'nexmark.base-time' = '0', 'nexmark.interval-us' = '20',
  'nexmark.active-auctions' = '1000', 'nexmark.active-people' = '500',
  'scan.parallelism' = '3', 'scan.watermark.idle-timeout' = '5 s'
);
CREATE TABLE totals (
  auction BIGINT, bidder BIGINT, cents DECIMAL(38, 2), bids BIGINT, mean DOUBLE, ends TIMESTAMP(3)
) WITH ('connector' = 'blackhole');

-- Keys and arguments that are expressions, a filter on both sides, an offset, the same aggregate twice.
INSERT INTO totals
SELECT b.auction, bidder % 10, SUM(CAST(price AS DECIMAL(10, 2)) * 2) + 1, COUNT(b.channel) AS bids,
       CASE WHEN COUNT(b.channel) > 0 THEN AVG(price) ELSE 0 END,
       window_end + INTERVAL '1' SECOND
FROM TABLE(TUMBLE(DATA => TABLE bid, TIMECOL => DESCRIPTOR(date_time), SIZE => INTERVAL '10' SECOND, OFFSET => INTERVAL '500' MILLISECOND)) AS b
WHERE MOD(b.auction, 123) = 0 AND channel LIKE 'channel-%'
GROUP BY auction, window_start, window_end, (bidder % 10)
HAVING COUNT(*) > 1 AND MAX(price) >= 100 AND window_start > TIMESTAMP '1970-01-01 00:00:10';
