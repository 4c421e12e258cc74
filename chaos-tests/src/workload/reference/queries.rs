//! The reference queries: one over flights, and those of the Nexmark benchmark that SQL without joins and sessions can say,
//! as far as they exercise different things.
//!
//! | query | what it exercises | where it differs from the benchmark's |
//! |---|---|---|
//! | `flights` | a filter, windows of sums and averages over rows that come out of order, a filter on these; rows are exchanged | it is none of it |
//! | `nexmark-q14` | no state: a filter, decimals, `CASE` and functions of each row | the user-defined count of a letter is said with the lengths of two texts |
//! | `nexmark-q17` | keyed windows: conditional counts, least, greatest, sum and mean of each auction | tumbling windows of an hour where it has a group for each day, and `CASE` for its `FILTER` |
//! | `nexmark-q22` | a projection that splits text, and windows upon it: `MIN` and `MAX` of text, a computed key | it ends with the projection; `SPLIT_PART` counts from 1; URLs have two parts, not three |
//!
//! Those of Nexmark read the same bids of one day, made by the seed of the run.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How many flights there are.
const FLIGHTS: u64 = 327_346;
/// Of the Nexmark source, 92 of a hundred of them bids.
const EVENTS: u64 = 200_000;
/// Of event time between two of them: all together 22 hours, so that hours of the day differ and windows of an hour end
/// every few seconds of a short run.
const EVENT_INTERVAL_US: u64 = 400_000;

/// One of the queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Query {
    /// Late flights by window, destination and carrier. In the order of landing while the event time is the departure, so
    /// that windows really wait for their watermark.
    Flights,
    /// Calculation.
    NexmarkQ14,
    /// Statistics of auctions.
    NexmarkQ17,
    /// Directories of the URL.
    NexmarkQ22,
}

/// What a query reads, and where it commits to.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// The file of flights.
    pub flights: &'a Path,
    /// Of bids.
    pub seed: u64,
    #[expect(missing_docs, reason = "see above")]
    pub output: &'a Path,
    /// How long its input takes; none: as fast as it goes.
    pub lasts: Option<Duration>,
}

impl Reading<'_> {
    /// So many of that input a second; 0: as fast as it goes.
    fn pace(&self, of: u64) -> u64 {
        self.lasts
            .map_or(0, |lasts| (of / lasts.as_secs().max(1)).max(1))
    }
}

impl Query {
    #[expect(missing_docs, reason = "its name says it")]
    pub const ALL: [Self; 4] = [
        Self::Flights,
        Self::NexmarkQ14,
        Self::NexmarkQ17,
        Self::NexmarkQ22,
    ];

    /// As people, files and JSON call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flights => "flights",
            Self::NexmarkQ14 => "nexmark-q14",
            Self::NexmarkQ17 => "nexmark-q17",
            Self::NexmarkQ22 => "nexmark-q22",
        }
    }

    /// Slots that it takes. One has its rows exchanged; of the others there is room for several.
    pub fn parallelism(self) -> u32 {
        match self {
            Self::Flights => 2,
            _ => 1,
        }
    }

    /// The script.
    pub fn sql(self, reading: &Reading<'_>) -> String {
        let (source, columns, insert) = match self {
            Self::Flights => (flights(reading), LATENESS, LATE_FLIGHTS),
            Self::NexmarkQ14 => (bids(reading), CALCULATED, Q14),
            Self::NexmarkQ17 => (bids(reading), STATISTICS, Q17),
            Self::NexmarkQ22 => (bids(reading), DIRECTORIES, Q22),
        };
        let output = reading.output.display();
        format!(
            "{source};
CREATE TABLE result ({columns})
WITH ('connector' = 'filesystem', 'path' = '{output}', 'format' = 'csv');
INSERT INTO result
{insert};
"
        )
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn flights(reading: &Reading<'_>) -> String {
    format!(
        "CREATE TABLE flights (
  landed_at TIMESTAMP(3), departed_at TIMESTAMP(3), carrier STRING, flight BIGINT, tailnum STRING,
  origin STRING, dest STRING, distance BIGINT, dep_delay BIGINT, arr_delay BIGINT,
  WATERMARK FOR departed_at AS departed_at - INTERVAL '12' HOUR
) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'csv', 'csv.header' = 'true',
  'scan.rows-per-second' = '{}')",
        reading.flights.display(),
        reading.pace(FLIGHTS),
    )
}

fn bids(reading: &Reading<'_>) -> String {
    format!(
        "CREATE TABLE bid (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, date_time TIMESTAMP(3), extra STRING,
  WATERMARK FOR date_time AS date_time - INTERVAL '4' SECOND
) WITH ('connector' = 'nexmark', 'nexmark.table-type' = 'bid', 'nexmark.seed' = '{}',
  'nexmark.events' = '{EVENTS}', 'nexmark.interval-us' = '{EVENT_INTERVAL_US}',
  'nexmark.events-per-second' = '{}')",
        reading.seed,
        reading.pace(EVENTS),
    )
}

const LATENESS: &str = "
  window_start TIMESTAMP(3), dest STRING, carrier STRING, flights BIGINT, minutes BIGINT, distance DOUBLE,
  least BIGINT, worst BIGINT
";
const LATE_FLIGHTS: &str = "WITH late AS (
       SELECT departed_at, LOWER(carrier) AS carrier, dest, distance, arr_delay FROM flights WHERE arr_delay > 0
     ),
     sums AS (
       SELECT window_start, dest, carrier, COUNT(*) AS flights, SUM(arr_delay) AS minutes,
              CAST(AVG(distance) AS DOUBLE) AS distance, MIN(arr_delay) AS least, MAX(arr_delay) AS worst
       FROM TABLE(TUMBLE(TABLE late, DESCRIPTOR(departed_at), INTERVAL '3' HOUR))
       GROUP BY window_start, window_end, dest, carrier
     )
SELECT window_start, dest, carrier, flights, minutes, distance, least, worst FROM sums WHERE flights > 1";

const CALCULATED: &str = "
  auction BIGINT, bidder BIGINT, price DECIMAL(38, 3), bid_time_type STRING, date_time TIMESTAMP(3), extra STRING,
  c_counts BIGINT
";
const Q14: &str = "WITH euros AS (
       SELECT auction, bidder, CAST(price AS DECIMAL(19, 0)) * CAST(0.908 AS DECIMAL(4, 3)) AS price, date_time, extra FROM bid
     )
SELECT auction, bidder, price,
       CASE WHEN EXTRACT(HOUR FROM date_time) >= 8 AND EXTRACT(HOUR FROM date_time) <= 18 THEN 'dayTime'
            WHEN EXTRACT(HOUR FROM date_time) <= 6 OR EXTRACT(HOUR FROM date_time) >= 20 THEN 'nightTime'
            ELSE 'otherTime' END,
       date_time, extra, CHAR_LENGTH(extra) - CHAR_LENGTH(REPLACE(extra, 'c', ''))
FROM euros WHERE price > 1000000 AND price < 50000000";

const STATISTICS: &str = "
  auction BIGINT, window_start TIMESTAMP(3), total_bids BIGINT, rank1_bids BIGINT, rank2_bids BIGINT, rank3_bids BIGINT,
  min_price BIGINT, max_price BIGINT, avg_price DOUBLE, sum_price BIGINT
";
const Q17: &str = "SELECT auction, window_start, COUNT(*),
       COUNT(CASE WHEN price < 10000 THEN 1 END),
       COUNT(CASE WHEN price >= 10000 AND price < 1000000 THEN 1 END),
       COUNT(CASE WHEN price >= 1000000 THEN 1 END),
       MIN(price), MAX(price), CAST(AVG(price) AS DOUBLE), SUM(price)
FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(date_time), INTERVAL '1' HOUR))
GROUP BY auction, window_start, window_end";

const DIRECTORIES: &str = "
  window_start TIMESTAMP(3), dir1 STRING, channel STRING, bids BIGINT, first_dir2 STRING, last_dir2 STRING, highest BIGINT
";
const Q22: &str = "WITH parts AS (
       SELECT date_time, price, CASE WHEN channel LIKE 'channel-%' THEN 'other' ELSE UPPER(channel) END AS channel,
              SPLIT_PART(url, '/', 4) AS dir1, SPLIT_PART(url, '/', 5) AS dir2
       FROM bid
     )
SELECT window_start, dir1, channel, COUNT(*), MIN(dir2), MAX(dir2), MAX(price)
FROM TABLE(TUMBLE(TABLE parts, DESCRIPTOR(date_time), INTERVAL '1' HOUR))
GROUP BY window_start, window_end, dir1, channel";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_json_and_in_words_is_the_same() {
        for query in Query::ALL {
            let json = serde_json::to_value(query).unwrap();
            assert_eq!(json.as_str(), Some(query.name()));
        }
    }
}
