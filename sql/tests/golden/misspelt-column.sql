CREATE TABLE flights (
  departed_at TIMESTAMP(3), carrier STRING,
  WATERMARK FOR departed_at AS departed_at - INTERVAL '12' HOUR
) WITH ('connector' = 'filesystem', 'path' = '/in', 'format' = 'csv');
CREATE TABLE out (departed_at TIMESTAMP(3), carrier STRING) WITH ('connector' = 'blackhole');
INSERT INTO out
SELECT     departd_at, carrier FROM flights
