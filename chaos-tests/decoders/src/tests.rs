//! What is to be found is found.

use std::panic::catch_unwind;
use std::sync::Mutex;

use super::Seeds;

/// What a failing target says. Its input is not kept.
fn failure(target: impl FnOnce() + std::panic::UnwindSafe) -> String {
    let panic = catch_unwind(target).expect_err("it fails");
    let said = panic.downcast_ref::<String>().expect("words");
    let path = said
        .split("is in ")
        .nth(1)
        .and_then(|rest| rest.split(":\n").next());
    std::fs::remove_file(path.expect("a path")).unwrap();
    said.clone()
}

#[test]
fn a_panic_is_found_and_its_input_said() {
    let said = failure(|| {
        super::check!(Seeds::of(["begin 5 end"])).for_each(|bytes: &[u8]| {
            if let Some(at) = bytes.iter().position(|byte| *byte == b'5') {
                // Who trusts that something follows.
                let _ = bytes[at + 1];
            }
        });
    });
    assert!(said.contains("index out of bounds"), "{said}");
}

#[test]
fn an_allocation_for_a_length_that_lies_is_found() {
    let said = failure(|| {
        super::check!(Seeds::of([[4_u8, 0, 0, 0, 1, 2, 3, 4]])).for_each(|bytes: &[u8]| {
            if let Some((length, rest)) = bytes.split_first_chunk::<4>() {
                let length = u32::from_le_bytes(*length) as usize;
                let mut copy: Vec<u8> = Vec::with_capacity(length);
                copy.extend(rest.iter().take(length));
            }
        });
    });
    assert!(said.contains("bytes allocated for an input of"), "{said}");
}

#[test]
fn each_run_is_the_same() {
    let runs = [(); 2].map(|()| Mutex::new(Vec::new()));
    for seen in &runs {
        super::check!(Seeds::of(["some", "seeds"]).inputs(100)).for_each(|bytes: &[u8]| {
            seen.lock().unwrap().push(bytes.to_vec());
        });
    }
    let [once, again] = runs.map(|seen| seen.into_inner().unwrap());
    assert_eq!(once.len(), 102);
    assert_eq!(once, again);
}

#[test]
fn values_are_made_of_bytes() {
    let said = failure(|| {
        let target = super::check!(Seeds::none())
            .of_values()
            .with_type::<(u8, Vec<u8>)>();
        target.for_each(|(length, list)| assert!(list.len() < 8 || *length < 100));
    });
    assert!(said.contains("assertion failed"), "{said}");
}
