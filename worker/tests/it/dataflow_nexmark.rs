//! The Nexmark source by itself: the same rows at any parallelism, and on from any snapshot.

use flott_node::clock::ManualClock;
use flott_proto::ids::CheckpointId;
use flott_proto::job_graph::{NexmarkSource, NexmarkTable, OperatorKind, Source, Vertex};
use proptest::prelude::*;

use crate::dataflow_harness::*;

fn nexmark(table: NexmarkTable, columns: &str, parallelism: u32, events: u64) -> Vertex {
    let source = NexmarkSource {
        table,
        seed: 7,
        events,
        events_per_second: 1000,
        base_time_ms: 1_700_000_000_000,
        interval_us: 1000,
        active_auctions: 0,
        active_people: 0,
    };
    let source = OperatorKind::Source(Source::Nexmark(source));
    vertex(
        "source",
        parallelism,
        vec![operator("source", schema(columns), source)],
    )
}

fn generate(vertex: &Vertex) -> Vec<String> {
    let mut rows = Vec::new();
    for subtask in 0..vertex.parallelism {
        let clock = ManualClock::new(0);
        rows.extend(
            drain(
                &mut opened(vertex, (subtask, 1), Vec::new(), &clock),
                &clock,
            )
            .unwrap()
            .text(),
        );
    }
    rows.sort();
    rows
}

#[test]
fn nexmark_is_the_same_at_any_parallelism_in_its_proportions() {
    for (table, columns, rows) in [
        (
            NexmarkTable::Bid,
            "auction BIGINT,bidder BIGINT,price BIGINT,channel STRING,url STRING,date_time TIMESTAMP(3),extra STRING",
            46 * 12 + 6,
        ),
        (
            NexmarkTable::Auction,
            "id BIGINT,item_name STRING,description STRING,initial_bid BIGINT,reserve BIGINT,date_time TIMESTAMP(3),expires TIMESTAMP(3),seller BIGINT,category BIGINT,extra STRING",
            3 * 13,
        ),
        (
            NexmarkTable::Person,
            "id BIGINT,name STRING,email_address STRING,credit_card STRING,city STRING,state STRING,date_time TIMESTAMP(3),extra STRING",
            13,
        ),
    ] {
        let alone = generate(&nexmark(table, columns, 1, 610));
        assert_eq!(alone.len(), rows, "{table:?}");
        assert_eq!(alone, generate(&nexmark(table, columns, 3, 610)));
    }
}

#[test]
fn a_nexmark_table_may_declare_some_columns_in_any_order_and_no_others() {
    let columns = "date_time TIMESTAMP(6),auction BIGINT";
    let rows = generate(&nexmark(NexmarkTable::Bid, columns, 1, 6));
    assert_eq!(rows.len(), 2);
    assert!(rows[0].starts_with("2023-11-14T22:13:20.004 "), "{rows:?}");
    for (columns, needle) in [
        ("nope BIGINT", "no column \"nope\""),
        ("price STRING", "BIGINT, not"),
    ] {
        let error = build(
            &nexmark(NexmarkTable::Bid, columns, 1, 6),
            None,
            (0, 1),
            Vec::new(),
            &ManualClock::new(0),
        )
        .unwrap_err();
        assert!(error.to_string().contains(needle), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn nexmark_goes_on_from_a_snapshot_at_any_parallelism(first in 1u32..5, second in 1u32..9, polls in prop::collection::vec(0usize..40, 4)) {
        let columns = "auction BIGINT,price BIGINT,date_time TIMESTAMP(3)";
        let before = nexmark(NexmarkTable::Bid, columns, first, 700);
        let (mut rows, mut states) = (Vec::new(), Vec::new());
        for subtask in 0..first {
            let clock = ManualClock::new(0);
            let mut chain = opened(&before, (subtask, 1), Vec::new(), &clock);
            let mut emitted = Emitted::default();
            for _ in 0..polls[subtask as usize] {
                poll(&mut chain, &clock, &mut emitted).unwrap();
            }
            rows.extend(emitted.text());
            states.push(chain.snapshot(CheckpointId(1)).unwrap().0);
        }
        let after = nexmark(NexmarkTable::Bid, columns, second, 700);
        for subtask in 0..second {
            let restored = if first == second { vec![states[subtask as usize].clone()] } else { states.clone() };
            let clock = ManualClock::new(0);
            rows.extend(drain(&mut opened(&after, (subtask, 2), restored, &clock), &clock).unwrap().text());
        }
        rows.sort();
        prop_assert_eq!(rows, generate(&before));
    }
}
