-- Every type, and the result type of every aggregate.
CREATE TABLE t (
  b BOOLEAN, i8 TINYINT, i16 SMALLINT, i32 INTEGER, i64 BIGINT, f32 FLOAT, f64 DOUBLE PRECISION, d DECIMAL, n NUMERIC(5, 1),
  s STRING, v VARCHAR(3), y BYTES, day DATE, t0 TIMESTAMP(0), t3 TIMESTAMP(3) WITHOUT TIME ZONE, t6 TIMESTAMP, t9 TIMESTAMP(9),
  WATERMARK FOR t0 AS t0 - INTERVAL '0.5' SECOND
) WITH ('connector' = 'filesystem', 'path' = '/t', 'format' = 'csv');
CREATE TABLE o (
  c BIGINT, s8 BIGINT, s16 BIGINT, s32 BIGINT, s64 BIGINT, s_f32 DOUBLE, s_f64 DOUBLE, s_d DECIMAL(38, 0), s_n DECIMAL(38, 1),
  m8 TINYINT, m16 SMALLINT, m32 INT, m64 BIGINT, m_f32 FLOAT, m_n DECIMAL(5, 1), m_s STRING, m_day DATE, m_t0 TIMESTAMP(0),
  m_t9 TIMESTAMP(9), a8 DOUBLE, a_n DOUBLE, k_b BOOLEAN, k_y BYTES
) WITH ('connector' = 'blackhole');
INSERT INTO o SELECT
  COUNT(y), SUM(i8), SUM(i16), SUM(i32), SUM(i64), SUM(f32), SUM(f64), SUM(d), SUM(n),
  MIN(i8), MAX(i16), MIN(i32), MAX(i64), MIN(f32), MAX(n), MIN(s), MAX(day), MIN(t0),
  MAX(t9), AVG(i8), AVG(n), b, y
FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(t0), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, b, y
