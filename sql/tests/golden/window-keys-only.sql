-- No aggregate is asked for: the distinct keys of each window.
CREATE TABLE flights (departed_at TIMESTAMP(3), carrier STRING, count_1 STRING, key_1 STRING, WATERMARK FOR departed_at AS departed_at)
WITH ('connector' = 'filesystem', 'path' = '/in', 'format' = 'csv');
CREATE TABLE seen (carrier STRING, hour_of_day BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO seen
SELECT carrier || count_1, EXTRACT(HOUR FROM window_start)
FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' WEEK))
GROUP BY window_start, window_end, carrier || count_1, count_1, key_1, carrier || count_1;
