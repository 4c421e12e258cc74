//! No script makes the compiler panic, or overflow its stack.

use flott_sql::Compiled;
use proptest::prelude::*;

use crate::compiler::{PRELUDE, graph, run};
use crate::golden::whole_scripts;

/// What a panic inside the compiler is reported as.
const PANICKED: &str = "the SQL compiler failed";

fn check(script: &str) {
    if let Err(error) = run(script) {
        assert!(!error.message().contains(PANICKED), "{script}");
        assert!(error.position().line >= 1 && error.position().column >= 1);
    }
}

/// Splits into words, numbers, and single other characters.
fn tokens(script: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    for character in script.chars() {
        let word = character.is_alphanumeric() || character == '_';
        match tokens.last_mut() {
            Some(last) if word && last.ends_with(|c: char| c.is_alphanumeric() || c == '_') => {
                last.push(character);
            }
            _ => tokens.push(character.to_string()),
        }
    }
    tokens
}

#[derive(Clone, Debug)]
enum Mutation {
    Delete,
    Duplicate,
    Swap(prop::sample::Index),
    Replace(&'static str),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let spice = prop::sample::select(vec![
        "",
        "(",
        ")",
        "'",
        ";",
        ",",
        "*",
        "NULL",
        "NOT",
        "-1",
        "1e999",
        "99999999999999999999",
        "SELECT",
        "CASE",
        "CAST(",
        "INTERVAL",
        "window_start",
        "COUNT(*)",
        "\u{0}",
        "ß",
        "`",
        "\"",
        "/*",
        "--",
        "::",
        "=>",
        "TABLE",
        "OVER ()",
        "AS",
        ".",
        "$1",
        "x'0'",
        "ARRAY[1]",
    ]);
    prop_oneof![
        Just(Mutation::Delete),
        Just(Mutation::Duplicate),
        any::<prop::sample::Index>().prop_map(Mutation::Swap),
        spice.prop_map(Mutation::Replace),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_script_is_compiled_or_refused(
        script in any::<prop::sample::Index>(),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), mutation()), 1..4),
    ) {
        let scripts = whole_scripts();
        let mut tokens = tokens(&script.get(&scripts).1);
        for (place, mutation) in mutations {
            let index = place.index(tokens.len());
            match mutation {
                Mutation::Delete => { tokens.remove(index); }
                Mutation::Duplicate => tokens.insert(index, tokens[index].clone()),
                Mutation::Swap(other) => { let other = other.index(tokens.len()); tokens.swap(index, other); }
                Mutation::Replace(text) => tokens[index] = text.to_owned(),
            }
        }
        check(&tokens.concat());
    }
}

#[test]
fn large_and_deep_scripts_are_refused_without_harm() {
    let select = |expression: &str| {
        format!("{PRELUDE} INSERT INTO counts SELECT carrier, {expression} FROM flights")
    };
    let nested_coalesce = (0..40).fold("flight".to_owned(), |inner, _| {
        format!("COALESCE(ABS({inner}), 1)")
    });
    for script in [
        select(&vec!["1"; 5_000].join(" + ")),
        select(&vec!["flight"; 50_000].join(" - ")),
        select(&format!("{}1{}", "(".repeat(5_000), ")".repeat(5_000))),
        select(&format!("{}1", "- ".repeat(3_000))),
        select(&format!("CASE {} END", "WHEN TRUE THEN 1 ".repeat(6_000))),
        select(&nested_coalesce),
        format!(
            "{PRELUDE} INSERT INTO counts {}",
            vec!["SELECT 1"; 2_000].join(" UNION ALL ")
        ),
        format!(
            "{PRELUDE} INSERT INTO counts {}",
            "SELECT * FROM (".repeat(1_000)
        ),
        format!("{PRELUDE} INSERT INTO counts {}", "(".repeat(10_000)),
        "NOT ".repeat(9_000),
    ] {
        let Err(error) = run(&script) else {
            panic!("accepted: {script:.2000}");
        };
        assert!(!error.message().contains(PANICKED), "{error}");
    }
}

#[test]
fn the_largest_expression_compiles_on_the_stack_of_a_thread() {
    let chain = vec!["flight"; 99].join(" + ");
    let script = format!("{PRELUDE} INSERT INTO counts SELECT carrier, {chain} FROM flights");
    let job = graph(&script);
    // The standard library gives a thread 2 MiB, which is what a task's thread has in the worker.
    std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(move || assert!(crate::round_trip::check_graph(&job) > 0))
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn a_wide_script_compiles() {
    let columns: Vec<String> = (0..500).map(|i| format!("c{i} BIGINT")).collect();
    let columns = columns.join(", ");
    let values: Vec<String> = (0..500).map(|i| format!("c{i} + {i}")).collect();
    let script = format!(
        "CREATE TABLE a ({columns}) WITH ('connector' = 'filesystem', 'path' = '/a', 'format' = 'csv');
         CREATE TABLE b ({columns}) WITH ('connector' = 'blackhole');
         INSERT INTO b SELECT {} FROM a WHERE c1 IN ({})",
        values.join(", "),
        vec!["7"; 2_000].join(", ")
    );
    assert!(matches!(run(&script), Ok(Compiled::Job { .. })));
}
