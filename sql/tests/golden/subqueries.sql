CREATE TABLE flights (departed_at TIMESTAMP(3), carrier STRING, dep_delay BIGINT, WATERMARK FOR departed_at AS departed_at - INTERVAL '1' HOUR)
WITH ('connector' = 'filesystem', 'path' = '/in', 'format' = 'json', 'json.ignore-parse-errors' = 'true');
CREATE TABLE out (carrier STRING, late BIGINT, share DOUBLE) WITH ('connector' = 'blackhole');

-- The event time survives a subquery and a rename; the window's result is filtered by an outer query.
INSERT INTO out
WITH late AS (SELECT departed_at AS `At`, LOWER(carrier) AS carrier, dep_delay FROM flights WHERE dep_delay > 0),
     hourly AS (
       SELECT carrier, COUNT(*) AS flights, SUM(dep_delay) AS minutes
       FROM TABLE(TUMBLE(TABLE late, DESCRIPTOR(`At`), INTERVAL '1' HOUR))
       GROUP BY window_start, window_end, carrier
     )
SELECT h.carrier, h.minutes, CAST(h.minutes AS DOUBLE) / h.flights
FROM (SELECT * FROM hourly WHERE flights > 10) h
WHERE h.carrier <> 'xx';
