//! A sink that counts rows and drops them.

use arrow::record_batch::RecordBatch;
use flott_proto::wire;

use crate::Error;
use crate::operators::{Collector, Operator};

#[derive(Debug, Default)]
pub(crate) struct Blackhole {
    rows: u64,
}

impl Operator for Blackhole {
    fn process(&mut self, batch: RecordBatch, _out: &mut dyn Collector) -> Result<(), Error> {
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    fn add_counters(&self, counters: &mut wire::TaskCounters) {
        counters.records_out += self.rows;
    }
}
