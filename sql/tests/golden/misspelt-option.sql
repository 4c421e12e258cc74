CREATE TABLE flights (departed_at TIMESTAMP(3))
WITH ('connector' = 'filesystem', 'path' = '/in', 'format' = 'csv',
      'csv.ignore-parse-error' = 'true');
