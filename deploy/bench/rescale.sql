-- Keyed state that grows as fast as the machine makes it: Nexmark bids counted by auction and bidder. See rescale.sh.
CREATE TABLE bid (auction BIGINT, bidder BIGINT, price BIGINT, url STRING, extra STRING, date_time TIMESTAMP(3),
  WATERMARK FOR date_time AS date_time - INTERVAL '4' SECOND)
WITH ('connector' = 'nexmark', 'nexmark.table-type' = 'bid', 'nexmark.events-per-second' = '400000',
      'nexmark.active-auctions' = '5000', 'nexmark.active-people' = '5000', 'nexmark.interval-us' = '30');
CREATE TABLE totals (window_start TIMESTAMP(3), window_end TIMESTAMP(3), auction BIGINT, bidder BIGINT, bids BIGINT, total BIGINT, url STRING, extra STRING)
WITH ('connector' = 'blackhole');
INSERT INTO totals
SELECT window_start, window_end, auction, bidder, COUNT(*), SUM(price), MAX(url), MAX(extra)
FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(date_time), INTERVAL '30' DAY))
GROUP BY window_start, window_end, auction, bidder;
