CREATE TABLE IF NOT EXISTS a (x BIGINT, y STRING) WITH ('connector' = 'filesystem', 'path' = '/a', 'format' = 'json');
CREATE TABLE IF NOT EXISTS a (z BIGINT) WITH ('connector' = 'filesystem', 'path' = '/z', 'format' = 'json');
CREATE TABLE gone (x BIGINT) WITH ('connector' = 'blackhole');
DROP TABLE gone;
DROP TABLE IF EXISTS gone;
CREATE TABLE b (first BIGINT, second BIGINT, third STRING) WITH ('connector' = 'blackhole');
INSERT INTO b (third, first) SELECT y, x FROM a;
