INSERT INTO counts SELECT nam, 1 FROM flights
----
INSERT INTO counts SELECT Origin, 1 FROM flights
----
INSERT INTO counts SELECT f.origin, 1 FROM flights
----
INSERT INTO counts SELECT flights.origin, 1 FROM flights AS f
----
INSERT INTO counts SELECT origin, flight FROM fligths
----
INSERT INTO countz SELECT origin, flight FROM flights
----
INSERT INTO flights SELECT * FROM flights
----
INSERT INTO counts SELECT origin FROM flights
----
INSERT INTO counts SELECT origin, flight,
  dest FROM flights
----
INSERT INTO counts SELECT flight, origin FROM flights
----
INSERT INTO counts SELECT origin, CAST(flight AS DOUBLE) FROM flights
----
INSERT INTO small SELECT flight FROM flights
----
INSERT INTO small SELECT distance FROM flights
----
INSERT INTO small SELECT 3000000000 FROM flights
----
INSERT INTO small SELECT NULL FROM flights
----
INSERT INTO counts (name, nombre) SELECT origin, flight FROM flights
----
INSERT INTO counts (name, name) SELECT origin, flight FROM flights
----
INSERT INTO counts SELECT origin, flight FROM small
----
INSERT INTO counts SELECT origin, 1 FROM flights WHERE flight
----
INSERT INTO counts SELECT origin, 1 FROM flights WHERE flight > 3 + landed_at
----
INSERT INTO counts SELECT origin, 1 FROM flights WHERE distance > 5 AND origin = 5
----
INSERT INTO counts SELECT origin, 1 FROM flights WHERE flight IN (1, '2')
----
INSERT INTO counts SELECT origin, 1 FROM flights WHERE NOT (carrier BETWEEN 1 AND 2)
----
INSERT INTO counts SELECT CASE WHEN cancelled THEN 'cancelled' ELSE flight END, 1 FROM flights
----
INSERT INTO counts SELECT origin, COALESCE(flight, 'none') FROM flights
----
INSERT INTO counts SELECT origin, origin * 2 FROM flights
----
INSERT INTO counts SELECT origin, departed_at - landed_at FROM flights
----
INSERT INTO counts SELECT origin, CAST('twelve' AS BIGINT) FROM flights
----
INSERT INTO counts SELECT origin, 1 / 0 FROM flights
----
INSERT INTO counts SELECT origin, flight FROM flights ORDER BY flight
----
INSERT INTO counts SELECT origin, flight FROM flights LIMIT 10
----
INSERT INTO counts SELECT origin, flight FROM flights
OFFSET 3
----
INSERT INTO counts SELECT origin, flight FROM flights FETCH FIRST 5 ROWS ONLY
----
INSERT INTO counts SELECT DISTINCT origin, flight FROM flights
----
INSERT INTO counts SELECT origin, flight FROM flights
UNION ALL SELECT dest, flight FROM flights
----
INSERT INTO counts SELECT f.origin, f.flight FROM flights f
JOIN flights g ON f.flight = g.flight
----
INSERT INTO counts SELECT f.origin, f.flight FROM flights f LEFT OUTER JOIN flights g ON f.flight = g.flight
----
INSERT INTO counts SELECT f.origin, f.flight FROM flights f, flights g
----
INSERT INTO counts SELECT origin, COUNT(*) FROM flights GROUP BY origin
----
INSERT INTO counts SELECT 'all', COUNT(*) FROM flights
----
INSERT INTO counts SELECT origin, flight FROM flights WHERE COUNT(*) > 1
----
INSERT INTO counts SELECT origin, flight FROM flights HAVING flight > 1
----
INSERT INTO counts SELECT origin, ROW_NUMBER() OVER (PARTITION BY origin ORDER BY departed_at) FROM flights
----
INSERT INTO counts SELECT origin, SUM(flight) OVER (PARTITION BY origin) FROM flights
----
INSERT INTO counts SELECT origin, (SELECT MAX(flight) FROM flights) FROM flights
----
INSERT INTO counts SELECT origin, flight FROM flights WHERE flight IN (SELECT flight FROM flights)
----
INSERT INTO counts SELECT origin, flight FROM flights WHERE EXISTS (SELECT 1 FROM flights)
----
INSERT INTO counts SELECT my_udf(origin), flight FROM flights
----
INSERT INTO counts SELECT UPER(origin), flight FROM flights
----
INSERT INTO counts SELECT origin, YEAR(departed_at) FROM flights
----
INSERT INTO counts SELECT origin, flight FROM flights WHERE departed_at < NOW()
----
INSERT INTO counts SELECT origin, flight FROM flights WHERE departed_at < CURRENT_TIMESTAMP
----
INSERT INTO counts SELECT catalog.fn(origin), flight FROM flights
----
INSERT INTO counts SELECT CAST(origin AS CHAR(3)), flight FROM flights
----
INSERT INTO counts SELECT CAST(origin AS VARCHAR(3)), flight FROM flights
----
INSERT INTO counts SELECT origin, flight::INT FROM flights
----
INSERT INTO counts SELECT origin, flight FROM flights WHERE origin SIMILAR TO 'E%'
----
INSERT INTO counts SELECT origin, flight FROM flights WHERE departed_at > landed_at - INTERVAL '1-2' YEAR TO MONTH
----
INSERT INTO counts SELECT origin, flight FROM flights WHERE departed_at > landed_at - INTERVAL 5 HOUR
----
INSERT INTO counts SELECT DATE_FORMAT(departed_at, 'YYYY-ww'), flight FROM flights
----
INSERT INTO counts SELECT DATE_FORMAT(departed_at, origin), flight FROM flights
----
INSERT INTO counts SELECT origin, COALESCE() FROM flights
----
INSERT INTO counts SELECT origin, ABS(flight, 2) FROM flights
----
INSERT INTO counts SELECT origin, FLOOR(departed_at TO HOUR) FROM flights
----
INSERT INTO counts SELECT origin, ARRAY[1, 2] FROM flights
----
INSERT INTO counts SELECT origin, ? FROM flights
----
INSERT INTO counts SELECT origin, flight ^ 2 FROM flights
----
INSERT INTO counts SELECT name, name FROM (SELECT origin AS name, dest AS name FROM flights)
----
INSERT INTO counts SELECT f.origin, f.number FROM (SELECT origin, flight FROM flights) AS f
----
INSERT INTO counts SELECT a, b FROM flights AS f (a, b)
----
INSERT INTO counts WITH RECURSIVE r AS (SELECT 1) SELECT * FROM r
----
INSERT INTO counts VALUES ('a', 1)
----
INSERT INTO counts SELECT 'a', 1
----
INSERT INTO counts SELECT origin, flight FROM flights FOR SYSTEM_TIME AS OF departed_at
----
INSERT INTO counts SELECT origin, window_start FROM flights
----
INSERT INTO counts SELECT origin, flight FROM default_database.flights
----
INSERT INTO counts SELECT origin, flight FROM /*+ OPTIONS('path' = '/x') */ flights
----
INSERT OVERWRITE counts SELECT origin, flight FROM flights
----
INSERT INTO counts SELECT origin, flight FROM flights; INSERT INTO counts SELECT dest, flight FROM flights
----
INSERT INTO counts SELECT origin, flight FROM flights; SET 'parallelism.default' = '2'
----
INSERT INTO counts SELECT origin flight FROM flights WHERE
----
INSERT INTO counts SELECT origin,, flight FROM flights
----
INSERT INTO counts SELECT 'unfinished, flight FROM flights
