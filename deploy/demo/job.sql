-- Departures, delay and worst delay of every hour, airport and airline.
CREATE TABLE flights (
  landed_at TIMESTAMP(3), departed_at TIMESTAMP(3), carrier STRING, flight BIGINT, tailnum STRING,
  origin STRING, dest STRING, distance BIGINT, dep_delay BIGINT, arr_delay BIGINT,
  WATERMARK FOR departed_at AS departed_at - INTERVAL '12' HOUR
) WITH (
  'connector' = 'filesystem', 'path' = '{input}', 'format' = 'csv', 'csv.header' = 'true',
  'scan.rows-per-second' = '{rows_per_second}'
);

CREATE TABLE delays (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), origin STRING, carrier STRING,
  departures BIGINT, delay_minutes BIGINT, worst BIGINT
) WITH ('connector' = 'filesystem', 'path' = '{output}', 'format' = 'json');

INSERT INTO delays
SELECT window_start, window_end, origin, carrier,
       COUNT(*) AS departures, SUM(dep_delay) AS delay_minutes, MAX(dep_delay) AS worst
FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR))
GROUP BY window_start, window_end, origin, carrier;
