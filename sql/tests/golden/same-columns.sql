-- Nothing to compute: source and sink, and no projection between them.
CREATE TABLE a (x BIGINT, y STRING) WITH ('connector' = 'filesystem', 'path' = '/a', 'format' = 'json');
CREATE TABLE b (x BIGINT, y STRING) WITH ('connector' = 'filesystem', 'path' = '/b', 'format' = 'json', 'json.timestamp-format.standard' = 'ISO-8601');
INSERT INTO b SELECT * FROM a;
