//! Records of a JSON-lines split: one object a line. Members that the table does not declare are passed over, columns
//! that an object lacks are NULL, blank lines are nothing.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use arrow::datatypes::SchemaRef;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::rows::{RowsBuilder, Unfit, Value};
use super::split::{self, Bytes};
use crate::Error;

const BUFFER: usize = 64 * 1024;

/// The longest line that is read: beyond it a file is taken for something else than JSON lines.
const LINE_MAX: usize = 64 * 1024 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// An open JSON-lines split.
pub(super) struct JsonRecords {
    reader: BufReader<Bytes>,
    text: Vec<u8>,
    offset: u64,
    line: u64,
    names: Vec<String>,
}

impl JsonRecords {
    /// Opens `path` behind its first `offset` bytes, which are `line` lines.
    pub(super) fn open(
        path: &Path,
        schema: &SchemaRef,
        (offset, line): (u64, u64),
        place: &str,
    ) -> Result<Self, Error> {
        let bytes = split::open(path, offset, place)?;
        Ok(Self {
            reader: BufReader::with_capacity(BUFFER, bytes),
            text: Vec::new(),
            offset,
            line,
            names: schema.fields().iter().map(|f| f.name().clone()).collect(),
        })
    }

    /// Decompressed bytes and lines before the next record.
    pub(super) fn position(&self) -> (u64, u64) {
        (self.offset, self.line)
    }

    /// The line of the record that was read last, counted from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// Reads one record into `rows`; `None` at the end.
    pub(super) fn read(
        &mut self,
        rows: &mut RowsBuilder,
        path: &Path,
        place: &str,
    ) -> Result<Option<Result<(), Unfit>>, Error> {
        loop {
            self.text.clear();
            let read = (&mut self.reader)
                .take(LINE_MAX as u64 + 1)
                .read_until(b'\n', &mut self.text)
                .map_err(split::unreadable("read", path, place))?;
            if read == 0 {
                return Ok(None);
            }
            if read > LINE_MAX {
                return Err(Error::user(
                    place,
                    format!(
                        "{}:{}: a line of more than {LINE_MAX} bytes; are these JSON lines?",
                        path.display(),
                        self.line + 1
                    ),
                ));
            }
            let first = self.offset == 0;
            self.offset += read as u64;
            self.line += 1;
            let text = match self.text.strip_prefix(BYTE_ORDER_MARK) {
                Some(rest) if first => rest,
                _ => &self.text,
            };
            if !text.trim_ascii().is_empty() {
                return Ok(Some(take(text, &self.names, rows)));
            }
        }
    }
}

impl fmt::Debug for JsonRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonRecords")
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}

fn take(text: &[u8], names: &[String], rows: &mut RowsBuilder) -> Result<(), Unfit> {
    let mut record = Record {
        names,
        rows,
        unfit: None,
    };
    let mut json = serde_json::Deserializer::from_slice(text);
    let parsed = Object(&mut record)
        .deserialize(&mut json)
        .and_then(|()| json.end());
    if let Err(error) = parsed {
        let what = error.to_string();
        let what = what.split(" at line ").next().unwrap_or_default();
        return Err(format!(
            "the line is not a JSON object: {what} at character {}",
            error.column()
        ));
    }
    match record.unfit {
        Some(unfit) => Err(unfit),
        None => rows.finish_row(),
    }
}

/// A row in the making. The first value that does not fit is kept, and the rest of the object is only parsed.
struct Record<'a> {
    names: &'a [String],
    rows: &'a mut RowsBuilder,
    unfit: Option<Unfit>,
}

/// The object of a line.
struct Object<'r, 'a>(&'r mut Record<'a>);

impl<'de> DeserializeSeed<'de> for Object<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(column) = members.next_key_seed(Name(self.0.names))? {
            match column {
                Some(column) => members.next_value_seed(Member(self.0, column))?,
                None => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// A member's name: the column, or none.
struct Name<'a>(&'a [String]);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|column| column == name))
    }
}

/// The value for a column.
struct Member<'r, 'a>(&'r mut Record<'a>, usize);

impl Member<'_, '_> {
    fn append<E>(self, value: Value<'_>) -> Result<(), E> {
        if self.0.unfit.is_none() {
            self.0.unfit = self.0.rows.append(self.1, value).err();
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Member<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Member<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        self.append(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.append(Value::Boolean(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.append(Value::Integer(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.append(Value::Integer(value)),
            Err(_) => self.append(Value::Text(value.to_string().as_bytes())),
        }
    }
    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.append(Value::Float(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.append(Value::Text(value.as_bytes()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        self.append(Value::Nested)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        self.append(Value::Nested)
    }
}
