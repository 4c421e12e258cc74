//! The SQL types of a column, written as Flink writes them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Malformed;

/// A column's type. On the wire and in YAML it is its SQL text, e.g. `TIMESTAMP(3)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum DataType {
    Boolean,
    TinyInt,
    SmallInt,
    Int,
    BigInt,
    Float,
    Double,
    /// Precision 1 to 38, scale 0 to precision.
    Decimal {
        precision: u8,
        scale: u8,
    },
    String,
    Bytes,
    /// Days since 1970-01-01.
    Date,
    /// Without time zone; precision 0, 3, 6 or 9 digits of a second.
    Timestamp {
        precision: u8,
    },
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("BOOLEAN"),
            Self::TinyInt => f.write_str("TINYINT"),
            Self::SmallInt => f.write_str("SMALLINT"),
            Self::Int => f.write_str("INT"),
            Self::BigInt => f.write_str("BIGINT"),
            Self::Float => f.write_str("FLOAT"),
            Self::Double => f.write_str("DOUBLE"),
            Self::Decimal { precision, scale } => write!(f, "DECIMAL({precision}, {scale})"),
            Self::String => f.write_str("STRING"),
            Self::Bytes => f.write_str("BYTES"),
            Self::Date => f.write_str("DATE"),
            Self::Timestamp { precision } => write!(f, "TIMESTAMP({precision})"),
        }
    }
}

impl FromStr for DataType {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = |what: &str| Malformed::new("data type", format!("{text:?} {what}"));
        let (name, arguments) = match text.trim().split_once('(') {
            None => (text.trim(), Vec::new()),
            Some((name, rest)) => {
                let inside = rest
                    .strip_suffix(')')
                    .ok_or_else(|| malformed("lacks a closing parenthesis"))?;
                let numbers: Result<Vec<u8>, _> =
                    inside.split(',').map(|part| part.trim().parse()).collect();
                (
                    name.trim(),
                    numbers.map_err(|_| malformed("has an argument that is not a small number"))?,
                )
            }
        };
        let data_type = match (name.to_ascii_uppercase().as_str(), arguments.as_slice()) {
            ("BOOLEAN", []) => Self::Boolean,
            ("TINYINT", []) => Self::TinyInt,
            ("SMALLINT", []) => Self::SmallInt,
            ("INT" | "INTEGER", []) => Self::Int,
            ("BIGINT", []) => Self::BigInt,
            ("FLOAT" | "REAL", []) => Self::Float,
            ("DOUBLE" | "DOUBLE PRECISION", []) => Self::Double,
            ("DECIMAL" | "NUMERIC", []) => Self::Decimal {
                precision: 10,
                scale: 0,
            },
            ("DECIMAL" | "NUMERIC", &[precision]) => Self::Decimal {
                precision,
                scale: 0,
            },
            ("DECIMAL" | "NUMERIC", &[precision, scale]) => Self::Decimal { precision, scale },
            ("STRING", []) | ("VARCHAR", [_]) => Self::String,
            ("BYTES", []) => Self::Bytes,
            ("DATE", []) => Self::Date,
            ("TIMESTAMP", []) => Self::Timestamp { precision: 6 },
            ("TIMESTAMP", &[precision]) => Self::Timestamp { precision },
            _ => return Err(malformed("is not a supported type")),
        };
        match data_type {
            Self::Decimal { precision, scale }
                if !(1..=38).contains(&precision) || scale > precision =>
            {
                Err(malformed(
                    "needs 1 <= precision <= 38 and scale <= precision",
                ))
            }
            Self::Timestamp { precision } if ![0, 3, 6, 9].contains(&precision) => {
                Err(malformed("needs a precision of 0, 3, 6 or 9"))
            }
            valid => Ok(valid),
        }
    }
}

impl From<DataType> for String {
    fn from(data_type: DataType) -> Self {
        data_type.to_string()
    }
}

impl TryFrom<String> for DataType {
    type Error = Malformed;
    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

/// A data type as Arrow carries it, and back.
pub mod arrow {
    use arrow_schema::{DataType as Arrow, Field as ArrowField, Schema as ArrowSchema, TimeUnit};

    use super::DataType;
    use crate::Malformed;
    use crate::job_graph::{Field, Schema};

    impl DataType {
        /// The Arrow type of a column of this type. `STRING` is `Utf8`, `TIMESTAMP(0)` is seconds.
        pub fn to_arrow(self) -> Arrow {
            match self {
                Self::Boolean => Arrow::Boolean,
                Self::TinyInt => Arrow::Int8,
                Self::SmallInt => Arrow::Int16,
                Self::Int => Arrow::Int32,
                Self::BigInt => Arrow::Int64,
                Self::Float => Arrow::Float32,
                Self::Double => Arrow::Float64,
                Self::Decimal { precision, scale } => Arrow::Decimal128(precision, scale as i8),
                Self::String => Arrow::Utf8,
                Self::Bytes => Arrow::Binary,
                Self::Date => Arrow::Date32,
                Self::Timestamp { precision } => Arrow::Timestamp(
                    match precision {
                        0 => TimeUnit::Second,
                        3 => TimeUnit::Millisecond,
                        6 => TimeUnit::Microsecond,
                        _ => TimeUnit::Nanosecond,
                    },
                    None,
                ),
            }
        }

        /// The type of an Arrow column; wider variants of the same logical type (views, large offsets, unsigned
        /// integers) map to the type that holds them.
        pub fn from_arrow(arrow: &Arrow) -> Result<Self, Malformed> {
            Ok(match arrow {
                Arrow::Boolean => Self::Boolean,
                Arrow::Int8 => Self::TinyInt,
                Arrow::Int16 | Arrow::UInt8 => Self::SmallInt,
                Arrow::Int32 | Arrow::UInt16 => Self::Int,
                Arrow::Int64 | Arrow::UInt32 | Arrow::UInt64 => Self::BigInt,
                Arrow::Float32 => Self::Float,
                Arrow::Float64 => Self::Double,
                Arrow::Decimal128(precision, scale) if *scale >= 0 => Self::Decimal {
                    precision: *precision,
                    scale: *scale as u8,
                },
                Arrow::Utf8 | Arrow::LargeUtf8 | Arrow::Utf8View => Self::String,
                Arrow::Binary | Arrow::LargeBinary | Arrow::BinaryView => Self::Bytes,
                Arrow::Date32 => Self::Date,
                Arrow::Timestamp(unit, None) => Self::Timestamp {
                    precision: match unit {
                        TimeUnit::Second => 0,
                        TimeUnit::Millisecond => 3,
                        TimeUnit::Microsecond => 6,
                        TimeUnit::Nanosecond => 9,
                    },
                },
                other => {
                    return Err(Malformed::new(
                        "data type",
                        format!("{other} has no SQL type in Flott"),
                    ));
                }
            })
        }
    }

    impl Schema {
        /// The Arrow schema with the same names, types and nullability.
        pub fn to_arrow(&self) -> ArrowSchema {
            let field = |f: &Field| ArrowField::new(&f.name, f.data_type.to_arrow(), f.nullable);
            ArrowSchema::new(self.fields.iter().map(field).collect::<Vec<_>>())
        }

        /// The SQL schema of an Arrow schema; fails on a type that Flott's SQL lacks.
        pub fn from_arrow(schema: &ArrowSchema) -> Result<Self, Malformed> {
            let field = |f: &std::sync::Arc<ArrowField>| {
                Ok(Field {
                    name: f.name().clone(),
                    data_type: DataType::from_arrow(f.data_type())?,
                    nullable: f.is_nullable(),
                })
            };
            Ok(Self {
                fields: schema
                    .fields()
                    .iter()
                    .map(field)
                    .collect::<Result<_, Malformed>>()?,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_arrow_round_trip() {
        for text in [
            "BOOLEAN",
            "TINYINT",
            "SMALLINT",
            "INT",
            "BIGINT",
            "FLOAT",
            "DOUBLE",
            "DECIMAL(10, 2)",
            "STRING",
            "BYTES",
            "DATE",
            "TIMESTAMP(0)",
            "TIMESTAMP(3)",
            "TIMESTAMP(6)",
            "TIMESTAMP(9)",
        ] {
            let data_type: DataType = text.parse().unwrap();
            assert_eq!(data_type.to_string(), text);
            assert_eq!(
                DataType::from_arrow(&data_type.to_arrow()).unwrap(),
                data_type
            );
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "",
            "MAP<INT, INT>",
            "DECIMAL(39, 0)",
            "DECIMAL(3, 4)",
            "TIMESTAMP(4)",
            "TIMESTAMP(3",
            "INT(x)",
        ] {
            assert!(bad.parse::<DataType>().is_err(), "{bad:?}");
        }
    }
}
