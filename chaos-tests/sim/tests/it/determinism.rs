//! A seed decides everything.

use crate::verdict;

#[test]
fn the_same_seed_does_the_same_twice() {
    let (once, again) = (verdict(2, None), verdict(2, None));
    assert!(once.events > 1000, "something happened: {once:?}");
    assert_eq!(
        (once.trace, once.events, once.counts),
        (again.trace, again.events, again.counts)
    );
    assert_ne!(
        once.trace,
        verdict(3, None).trace,
        "another seed does other things"
    );
}
