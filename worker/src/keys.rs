//! Keys: the canonical encoding of key columns, and what follows from it: key groups and hash partitioning.
//!
//! **Stable for ever.** State is stored under these bytes and found by their hash, so a change of any of them loses
//! every key; the golden vectors in the tests pin them. The encoding of a key is that of its columns one after another:
//!
//! ```text
//! NULL                0x00
//! BOOLEAN             0x01, then 0x00 or 0x01
//! integers            0x02, then the number; all widths alike
//! FLOAT, DOUBLE       0x03, then the value as f64, its bits in total order, big endian; -0 is 0, all NaN are one
//! DECIMAL             0x04, the scale, then the unscaled number
//! STRING              0x05, the length as LEB128, then UTF-8
//! BYTES               0x06, the length as LEB128, then the bytes
//! DATE                0x07, then the number of days since 1970
//! TIMESTAMP           0x08, then the number of seconds since 1970, then that of nanoseconds
//! number              0x80 + n and the n low bytes if it is not negative, 0x7F - n and the n low bytes of its two's
//!                     complement if it is; big endian, n as small as possible. Bytes sort as the numbers do.
//! ```
//!
//! What must stay true: equal keys have equal bytes, whatever the column's width or precision; different keys have
//! different bytes; and no key's bytes are a prefix of another's with as many columns.
//!
//! [`encode`] does a whole batch, column by column, into one buffer. [`decode`] gives the columns back. [`partition`]
//! divides a batch by the subtasks that its keys belong to.

mod decode;
mod encode;
mod partition;

pub use decode::KeyDecoder;
pub use encode::{EncodedKeys, KeyEncoder};
pub use partition::{HashPartitioner, partition};

const NULL: u8 = 0x00;
const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const FLOAT: u8 = 0x03;
const DECIMAL: u8 = 0x04;
const STRING: u8 = 0x05;
const BYTES: u8 = 0x06;
const DATE: u8 = 0x07;
const TIMESTAMP: u8 = 0x08;

/// Flips the order of positive floats above that of negative ones, and back.
const SIGN: u64 = 1 << 63;

#[cfg(test)]
mod tests;
