CREATE TABLE a (x BIGINT) WITH ('connector' = 'blackhole');
-- and no INSERT
