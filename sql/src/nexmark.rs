//! The columns that the nexmark generator has, by table.
//!
//! The same as the worker's generator makes: those of the Nexmark benchmark. A script declares the ones it wants, in any
//! order, with these types.

use flott_proto::data_type::DataType;
use flott_proto::job_graph::NexmarkTable;

const TIMESTAMP: DataType = DataType::Timestamp { precision: 3 };

const BID: &[(&str, DataType)] = &[
    ("auction", DataType::BigInt),
    ("bidder", DataType::BigInt),
    ("price", DataType::BigInt),
    ("channel", DataType::String),
    ("url", DataType::String),
    ("date_time", TIMESTAMP),
    ("extra", DataType::String),
];

const AUCTION: &[(&str, DataType)] = &[
    ("id", DataType::BigInt),
    ("item_name", DataType::String),
    ("description", DataType::String),
    ("initial_bid", DataType::BigInt),
    ("reserve", DataType::BigInt),
    ("date_time", TIMESTAMP),
    ("expires", TIMESTAMP),
    ("seller", DataType::BigInt),
    ("category", DataType::BigInt),
    ("extra", DataType::String),
];

const PERSON: &[(&str, DataType)] = &[
    ("id", DataType::BigInt),
    ("name", DataType::String),
    ("email_address", DataType::String),
    ("credit_card", DataType::String),
    ("city", DataType::String),
    ("state", DataType::String),
    ("date_time", TIMESTAMP),
    ("extra", DataType::String),
];

/// The columns of a table of the generator.
pub(crate) fn columns(table: NexmarkTable) -> &'static [(&'static str, DataType)] {
    match table {
        NexmarkTable::Bid => BID,
        NexmarkTable::Auction => AUCTION,
        NexmarkTable::Person => PERSON,
    }
}
