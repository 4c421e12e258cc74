-- Without keys one subtask sees every row.
CREATE TABLE flights (departed_at TIMESTAMP(3), dep_delay INT, WATERMARK FOR departed_at AS departed_at - INTERVAL '1' HOUR)
WITH ('connector' = 'filesystem', 'path' = '/in', 'format' = 'csv');
CREATE TABLE out (starts TIMESTAMP(3), flights BIGINT, worst INT, mean DOUBLE, hours INT) WITH ('connector' = 'blackhole');
INSERT INTO out
SELECT window_start, COUNT(1), MAX(dep_delay), AVG(dep_delay), CAST(SUM(dep_delay) / 60 AS INT)
FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' DAY, INTERVAL '-6' HOUR))
GROUP BY window_start, window_end;
