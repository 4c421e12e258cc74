CREATE TABLE orders (
  id BIGINT NOT NULL, customer STRING, amount DECIMAL(12, 2), quantity INT, placed_at TIMESTAMP(3), note STRING,
  `Select` STRING, `odd name` BIGINT, flag BOOLEAN, payload BYTES, day DATE, ratio FLOAT, tiny TINYINT, small SMALLINT
) WITH ('connector' = 'filesystem', 'path' = '/in', 'format' = 'csv', 'csv.field-delimiter' = '\t',
        'csv.null-literal' = 'NA', 'csv.ignore-parse-errors' = 'true');
CREATE TABLE report (
  id BIGINT NOT NULL, customer STRING NOT NULL, total DECIMAL(38, 2), size STRING, hour_of_day BIGINT, `Select` STRING,
  odd DOUBLE, stamp TIMESTAMP(6), label STRING, one TINYINT, nothing STRING, flag BOOLEAN, ratio DOUBLE, wide INT,
  matched BOOLEAN, piece STRING, spelt STRING
) WITH ('connector' = 'filesystem', 'path' = '/out', 'format' = 'csv', 'csv.header' = 'true', 'sink.parallelism' = '2');

INSERT INTO report
SELECT o.id, COALESCE(customer, 'nobody'), amount * quantity,
       CASE WHEN quantity > 100 THEN 'large' WHEN quantity BETWEEN 10 AND 100 THEN 'middle' ELSE 'small' END,
       EXTRACT(HOUR FROM placed_at), `Select`, `odd name` * 1.5, placed_at + INTERVAL '90' MINUTE,
       UPPER(TRIM(note)) || '-' || CAST(id AS STRING), 1, NULL, NOT flag, ratio, small + tiny,
       customer LIKE 'A%' AND note IS NOT NULL AND id NOT IN (1, 2, 3), SUBSTRING(note FROM 2 FOR 3),
       DATE_FORMAT(placed_at, 'dd.MM.yyyy HH:mm')
FROM orders AS o
WHERE (quantity > 0 OR amount >= 10.5) AND placed_at >= TIMESTAMP '2013-01-01 00:00:00' AND day <> DATE '2020-02-29'
