//! Divides a batch by the subtasks that its keys belong to: a counting sort of the rows, one `take`, then slices.

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;

use super::{EncodedKeys, KeyEncoder};
use crate::Error;

/// Divides batch after batch of one edge; reuses its buffers.
#[derive(Clone, Debug)]
pub struct HashPartitioner {
    encoder: KeyEncoder,
    keys: EncodedKeys,
    targets: Vec<u32>,
    max_parallelism: u32,
    parallelism: u32,
}

impl HashPartitioner {
    /// By these columns of batches with that schema. Both parallelisms are those of the target vertex.
    pub fn new(
        schema: &Schema,
        columns: &[String],
        max_parallelism: u32,
        parallelism: u32,
    ) -> Result<Self, Error> {
        let position = |name: &String| {
            schema.index_of(name).map_err(|_| {
                let known = crate::operators::names(schema);
                Error::user(
                    "hash edge",
                    format!("no column {name:?}; there are {known}"),
                )
            })
        };
        let columns = columns.iter().map(position).collect::<Result<_, _>>()?;
        Ok(Self {
            encoder: KeyEncoder::new(schema, columns)?,
            keys: EncodedKeys::default(),
            targets: Vec::new(),
            max_parallelism,
            parallelism,
        })
    }

    /// The rows for each subtask of the target, in their order; `None` where there are none. The batches are slices of
    /// one copy (or, where all rows go one way, the batch itself): count their bytes by slice.
    pub fn partition(&mut self, batch: &RecordBatch) -> Result<Vec<Option<RecordBatch>>, Error> {
        let targets = self.parallelism as usize;
        let mut parts = vec![None; targets];
        if batch.num_rows() == 0 {
            return Ok(parts);
        }
        self.encoder.encode(batch, &mut self.keys);
        let (max, parallelism) = (self.max_parallelism, self.parallelism);
        self.targets.clear();
        self.targets.extend(
            self.keys
                .groups(max)
                .map(|group| group.subtask(max, parallelism)),
        );
        let mut ends = vec![0usize; targets];
        for &target in &self.targets {
            ends[target as usize] += 1;
        }
        if let Some(only) = ends.iter().position(|&count| count == batch.num_rows()) {
            parts[only] = Some(batch.clone());
            return Ok(parts);
        }
        // Counts become begins, and while the rows are placed begins become ends.
        let mut begin = 0;
        for end in &mut ends {
            let count = *end;
            *end = begin;
            begin += count;
        }
        let mut order = vec![0u32; batch.num_rows()];
        for (row, &target) in self.targets.iter().enumerate() {
            let place = &mut ends[target as usize];
            order[*place] = row as u32;
            *place += 1;
        }
        let sorted = take_record_batch(batch, &UInt32Array::from(order))
            .map_err(Error::arrow("hash edge"))?;
        let mut begin = 0;
        for (part, end) in parts.iter_mut().zip(ends) {
            if end > begin {
                *part = Some(sorted.slice(begin, end - begin));
            }
            begin = end;
        }
        Ok(parts)
    }
}

/// Divides one batch by the key group of the columns at these positions. An edge keeps a [`HashPartitioner`] instead.
pub fn partition(
    batch: &RecordBatch,
    columns: &[usize],
    max_parallelism: u32,
    parallelism: u32,
) -> Result<Vec<Option<RecordBatch>>, Error> {
    let mut partitioner = HashPartitioner {
        encoder: KeyEncoder::new(batch.schema_ref(), columns.to_vec())?,
        keys: EncodedKeys::default(),
        targets: Vec::new(),
        max_parallelism,
        parallelism,
    };
    partitioner.partition(batch)
}
