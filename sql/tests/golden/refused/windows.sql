INSERT INTO counts SELECT origin, COUNT(*) FROM TABLE(HOP(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '5' MINUTE, INTERVAL '1' HOUR)) GROUP BY window_start, window_end, origin
----
INSERT INTO counts SELECT origin, COUNT(*) FROM TABLE(SESSION(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '5' MINUTE)) GROUP BY window_start, window_end, origin
----
INSERT INTO counts SELECT origin, COUNT(*) FROM TABLE(CUMULATE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '5' MINUTE, INTERVAL '1' HOUR)) GROUP BY window_start, window_end, origin
----
INSERT INTO counts SELECT origin, COUNT(*) FROM flights GROUP BY TUMBLE(departed_at, INTERVAL '1' HOUR), origin
----
INSERT INTO counts SELECT origin, COUNT(*) FROM TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR) GROUP BY window_start, window_end, origin
----
INSERT INTO counts SELECT origin, COUNT(*) FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(landed_at), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, origin
----
INSERT INTO counts SELECT origin, COUNT(*) FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departedat), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, origin
----
INSERT INTO counts SELECT 'x', COUNT(*) FROM TABLE(TUMBLE(TABLE unordered, DESCRIPTOR(at), INTERVAL '1' HOUR)) GROUP BY window_start, window_end
----
INSERT INTO counts SELECT origin, COUNT(*) FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at))) GROUP BY window_start, window_end, origin
----
INSERT INTO counts SELECT origin, COUNT(*) FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '0' HOUR)) GROUP BY window_start, window_end, origin
----
INSERT INTO counts SELECT origin, COUNT(*) FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' MONTH)) GROUP BY window_start, window_end, origin
----
INSERT INTO counts SELECT origin, COUNT(*) FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL 'one' HOUR)) GROUP BY window_start, window_end, origin
----
INSERT INTO counts SELECT origin, COUNT(*) FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR, INTERVAL '2' HOUR)) GROUP BY window_start, window_end, origin
----
INSERT INTO counts SELECT origin, COUNT(*) FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), LENGTH => INTERVAL '1' HOUR)) GROUP BY window_start, window_end, origin
----
INSERT INTO counts SELECT origin, COUNT(*) FROM TABLE(TUMBLE(flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, origin
----
INSERT INTO counts SELECT origin, flight FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR))
----
INSERT INTO counts SELECT origin, COUNT(*) FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR)) GROUP BY origin
----
INSERT INTO counts SELECT origin, COUNT(*) FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR)) GROUP BY window_start, origin
----
INSERT INTO counts SELECT dest, COUNT(*) FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, origin
----
INSERT INTO counts SELECT origin, COUNT(DISTINCT dest) FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, origin
----
INSERT INTO counts SELECT origin, COUNT(*) FILTER (WHERE cancelled) FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, origin
----
INSERT INTO counts SELECT origin, SUM(carrier) FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, origin
----
INSERT INTO counts SELECT origin, MAX(raw) FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, origin
----
INSERT INTO counts SELECT origin, STDDEV(flight) FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, origin
----
INSERT INTO counts SELECT origin, SUM(MAX(flight)) FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, origin
----
INSERT INTO counts SELECT origin, SUM(flight, 2) FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, origin
----
INSERT INTO counts SELECT origin, COUNT(window_start) FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, origin
----
INSERT INTO counts SELECT origin, COUNT(*) FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR)) WHERE window_start > departed_at GROUP BY window_start, window_end, origin
----
INSERT INTO counts SELECT origin, COUNT(*) FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, 1
----
INSERT INTO counts SELECT origin, COUNT(*) FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, ROLLUP (origin)
----
INSERT INTO counts SELECT origin, COUNT(*) FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, origin, COUNT(*)
----
INSERT INTO counts SELECT origin, COUNT(*) FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, origin HAVING COUNT(*)
----
INSERT INTO counts SELECT TUMBLE_START(departed_at, INTERVAL '1' HOUR), COUNT(*) FROM flights
----
INSERT INTO counts SELECT origin, COUNT(*) FROM TABLE(TUMBLE(TABLE hourly, DESCRIPTOR(t), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, origin
----
INSERT INTO counts WITH h AS (SELECT departed_at + INTERVAL '1' HOUR AS t FROM flights)
SELECT 'x', COUNT(*) FROM TABLE(TUMBLE(TABLE h, DESCRIPTOR(t), INTERVAL '1' HOUR)) GROUP BY window_start, window_end
