//! Decides what becomes of each Ethernet frame that comes in at a port: where it goes out, and when. Pure.
//!
//! ```text
//! arrive(from, frame, rules, now)              depart(now)
//!   whose address is it sent to? nobody's: gone
//!   cut? lost? the line's buffer full?   gone
//!   bandwidth, delay, jitter: in order ───►  waiting, by the time that is due ───► (to, frame)
//!   overtaken: late, and not waited for
//!   doubled: once more, a little later
//! ```
//!
//! Who has which address is known for good ([`hardware_address`]), as in the tables of the machines: nobody asks, so a cut
//! in one direction cannot stop the other. What is sent to all goes nowhere. Chance is that of a seed; which frames it
//! meets is up to the machine.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use flott_chaos_basis::random::Random;

use crate::target::rules::{Book, End, Pair};

/// Source and destination address, and what is inside.
const HEADER_BYTES: usize = 14;
/// What waits before a thin line; what comes when it is full is lost, as at a router.
const BUFFER_BYTES: f64 = 65_536.0;
/// Frames that wait at the same time, 48 MiB of them at most: more than faults of a plan can hold back.
const WAITING_MAX: usize = 32_768;
/// The second of a doubled frame is later by up to so much.
const DOUBLED_AFTER_MAX_MS: u64 = 5;
/// A frame is overtaken by those of so long: longer than between two of them on a busy connection, shorter than any
/// time-out.
const OVERTAKEN_MS: (u64, u64) = (2, 30);

/// The hardware address of the machine with that number.
pub fn hardware_address(host: u8) -> [u8; 6] {
    [0x02, 0, 0, 0, 0, host]
}

/// What was done to frames since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "how many")]
pub struct Tally {
    pub forwarded: u64,
    pub lost: u64,
    pub doubled: u64,
    pub overtaken: u64,
}

/// Ports, and the frames that wait.
#[derive(Debug)]
pub struct Switch {
    ports: BTreeMap<[u8; 6], End>,
    lines: BTreeMap<Pair, Line>,
    waiting: BinaryHeap<Reverse<Waiting>>,
    arrived: u64,
    tally: Tally,
    random: Random,
}

/// A directed pair.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    /// When everything that was sent will have gone through, at its bandwidth.
    free_at: Duration,
    /// Of the last frame in order.
    last_due: Duration,
}

/// Ordered by `due`, then by `number`: what came first goes first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    due: Duration,
    number: u64,
    to: End,
    frame: Vec<u8>,
}

impl Switch {
    /// Without ports.
    pub fn new(random: Random) -> Self {
        Self {
            ports: BTreeMap::new(),
            lines: BTreeMap::new(),
            waiting: BinaryHeap::new(),
            arrived: 0,
            tally: Tally::default(),
            random,
        }
    }

    /// From now on `end` is the machine with that number.
    pub fn join(&mut self, end: End, host: u8) {
        self.ports.insert(hardware_address(host), end);
    }

    /// A frame comes in from `from`.
    pub fn arrive(&mut self, from: End, frame: Vec<u8>, rules: &Book, now: Duration) {
        let Some(to) = self.destination(&frame).filter(|to| *to != from) else {
            return;
        };
        let rule = rules.of((from, to));
        if rule.cut {
            return;
        }
        if self.happens(rule.lost_permille) {
            self.tally.lost += 1;
            return;
        }
        let line = self.lines.entry((from, to)).or_default();
        let mut due = now;
        if rule.bandwidth > 0 {
            let bandwidth = rule.bandwidth as f64;
            let begins = line.free_at.max(now);
            if (begins - now).as_secs_f64() * bandwidth > BUFFER_BYTES {
                return;
            }
            line.free_at = begins + Duration::from_secs_f64(frame.len() as f64 / bandwidth);
            due = line.free_at;
        }
        due += rule.delay;
        if !rule.jitter.is_zero() {
            due += self.random.duration(Duration::ZERO, rule.jitter);
        }
        due = due.max(line.last_due);
        if rule.overtaken_permille > 0 && self.random.permille(rule.overtaken_permille) {
            self.tally.overtaken += 1;
            let (least, most) = OVERTAKEN_MS;
            due += Duration::from_millis(self.random.between(least, most));
        } else {
            line.last_due = due;
        }
        if self.happens(rule.doubled_permille) {
            self.tally.doubled += 1;
            let after = Duration::from_millis(self.random.below(DOUBLED_AFTER_MAX_MS + 1));
            self.wait(due + after, to, frame.clone());
        }
        self.wait(due, to, frame);
    }

    /// When [`Self::depart`] will have something to give.
    pub fn next_due(&self) -> Option<Duration> {
        self.waiting.peek().map(|Reverse(next)| next.due)
    }

    /// A frame that is due, and where it goes out.
    pub fn depart(&mut self, now: Duration) -> Option<(End, Vec<u8>)> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse(next) = self.waiting.pop()?;
        self.tally.forwarded += 1;
        Some((next.to, next.frame))
    }

    /// What was done until now.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    fn destination(&self, frame: &[u8]) -> Option<End> {
        if frame.len() < HEADER_BYTES {
            return None;
        }
        self.ports.get(frame.first_chunk::<6>()?).copied()
    }

    /// Without a draw where nothing can happen: so chance is spent on frames under a rule alone.
    fn happens(&mut self, permille: u64) -> bool {
        permille > 0 && self.random.permille(permille)
    }

    fn wait(&mut self, due: Duration, to: End, frame: Vec<u8>) {
        if self.waiting.len() >= WAITING_MAX {
            return;
        }
        self.arrived += 1;
        self.waiting.push(Reverse(Waiting {
            due,
            number: self.arrived,
            to,
            frame,
        }));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::target::Node;
    use crate::target::rules::Rule;

    const ONE: End = End::Node(Node::Jobmanager(1));
    const TWO: End = End::Node(Node::Taskmanager(1));

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn switch(seed: u64) -> Switch {
        let mut switch = Switch::new(Random::new(seed));
        switch.join(ONE, 1);
        switch.join(TWO, 101);
        switch.join(End::Harness, 254);
        switch
    }

    /// To machine `host`, of `length` bytes; `content` tells it from others.
    fn frame(host: u8, length: usize, content: u8) -> Vec<u8> {
        let mut frame = vec![content; length];
        frame[..6].copy_from_slice(&hardware_address(host));
        frame
    }

    /// Everything that comes out, in order: when, where, what.
    fn drain(switch: &mut Switch) -> Vec<(Duration, End, u8)> {
        let mut out = Vec::new();
        while let Some(due) = switch.next_due() {
            let (to, frame) = switch.depart(due).unwrap();
            out.push((due, to, frame[HEADER_BYTES]));
        }
        out
    }

    /// What becomes of `count` frames from one to two, a millisecond apart, under that rule.
    fn send(seed: u64, count: u8, rule: Rule) -> (Vec<(Duration, u8)>, Tally) {
        let mut switch = switch(seed);
        let rules = Book::of_one((ONE, TWO), rule);
        for number in 0..count {
            let frame = frame(101, 1_000, number);
            switch.arrive(ONE, frame, &rules, ms(u64::from(number)));
        }
        let out = drain(&mut switch);
        assert!(out.iter().all(|(_, to, _)| *to == TWO));
        let out = out.into_iter().map(|(due, _, content)| (due, content));
        (out.collect(), switch.tally())
    }

    #[test]
    fn a_frame_goes_to_whom_it_is_addressed_at_once() {
        let mut switch = switch(1);
        let none = Book::default();
        for (from, host, content) in [(ONE, 101, 1), (TWO, 254, 2), (End::Harness, 1, 3)] {
            switch.arrive(from, frame(host, 60, content), &none, ms(5));
        }
        assert_eq!(switch.next_due(), Some(ms(5)));
        assert_eq!(switch.depart(ms(4)), None);
        let expected = [(ms(5), TWO, 1), (ms(5), End::Harness, 2), (ms(5), ONE, 3)];
        assert_eq!(drain(&mut switch), expected);
    }

    #[test]
    fn what_is_for_nobody_for_all_or_no_frame_goes_nowhere() {
        let mut switch = switch(1);
        let none = Book::default();
        let to_all = [0xFF; 60].to_vec();
        for lost in [frame(77, 60, 0), to_all, vec![2, 0, 0], Vec::new()] {
            switch.arrive(ONE, lost, &none, ms(0));
        }
        // To itself.
        switch.arrive(ONE, frame(1, 60, 0), &none, ms(0));
        assert_eq!(switch.next_due(), None);
    }

    #[test]
    fn a_cut_is_of_one_direction_and_what_is_sent_meanwhile_is_gone() {
        let mut switch = switch(1);
        let cut = Rule {
            cut: true,
            ..Rule::default()
        };
        let rules = Book::of_one((ONE, TWO), cut);
        switch.arrive(ONE, frame(101, 60, 1), &rules, ms(0));
        switch.arrive(TWO, frame(1, 60, 2), &rules, ms(0));
        switch.arrive(ONE, frame(254, 60, 3), &rules, ms(0));
        let out = [(ms(0), ONE, 2), (ms(0), End::Harness, 3)];
        assert_eq!(drain(&mut switch), out);
    }

    #[test]
    fn a_delay_with_jitter_keeps_the_order_also_when_it_is_lifted() {
        let rule = Rule {
            delay: ms(20),
            jitter: ms(10),
            ..Rule::default()
        };
        let (out, _) = send(3, 50, rule);
        let order: Vec<u8> = out.iter().map(|(_, content)| *content).collect();
        assert_eq!(order, (0..50).collect::<Vec<u8>>());
        let late = |(due, content): &(Duration, u8)| *due - ms(u64::from(*content));
        assert!(out.iter().all(|sent| late(sent) >= ms(20)), "{out:?}");
        assert!(out.iter().any(|sent| late(sent) > ms(21)), "{out:?}");

        let mut switch = switch(3);
        let rules = Book::of_one((ONE, TWO), rule);
        switch.arrive(ONE, frame(101, 60, 1), &rules, ms(0));
        switch.arrive(ONE, frame(101, 60, 2), &Book::default(), ms(1));
        let contents: Vec<u8> = drain(&mut switch).iter().map(|sent| sent.2).collect();
        assert_eq!(contents, [1, 2]);
    }

    #[test]
    fn a_thin_line_takes_its_time_and_loses_what_its_buffer_does_not_hold() {
        let rule = Rule {
            bandwidth: 100_000,
            ..Rule::default()
        };
        // 1,000 bytes take 10 ms, and one comes each millisecond: the buffer of 65,536 bytes is full after some 73.
        let (out, _) = send(1, 250, rule);
        let dues: Vec<Duration> = out.iter().map(|(due, _)| *due).collect();
        assert_eq!(dues[..3], [ms(10), ms(20), ms(30)]);
        assert!(out.len() > 73 && out.len() < 100, "{}", out.len());
    }

    #[test]
    fn loss_doubling_and_overtaking_are_as_frequent_as_said() {
        let nothing = Rule::default();
        let lossy = Rule {
            lost_permille: 200,
            ..nothing
        };
        let (mut lost, mut doubled, mut overtaken) = (0, 0, 0);
        for seed in 0..20 {
            let (out, tally) = send(seed, 100, lossy);
            assert_eq!(out.len() as u64 + tally.lost, 100);
            lost += tally.lost;
            let rule = Rule {
                doubled_permille: 200,
                ..nothing
            };
            let (out, tally) = send(seed, 100, rule);
            assert_eq!(out.len() as u64, 100 + tally.doubled);
            doubled += tally.doubled;
            let rule = Rule {
                overtaken_permille: 200,
                ..nothing
            };
            let (out, tally) = send(seed, 100, rule);
            assert_eq!(out.len(), 100);
            assert!(!out.is_sorted_by_key(|(_, content)| *content), "{out:?}");
            overtaken += tally.overtaken;
        }
        for count in [lost, doubled, overtaken] {
            assert!((300..500).contains(&count), "{lost} {doubled} {overtaken}");
        }
        let all = Rule {
            lost_permille: 1_000,
            ..nothing
        };
        assert!(send(1, 100, all).0.is_empty());
    }

    #[test]
    fn a_seed_means_the_same_fate_for_the_same_frames() {
        let rule = Rule {
            jitter: ms(7),
            lost_permille: 100,
            doubled_permille: 100,
            overtaken_permille: 100,
            ..Rule::default()
        };
        assert_eq!(send(5, 100, rule), send(5, 100, rule));
        assert_ne!(send(5, 100, rule), send(6, 100, rule));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut switch = switch(1);
        let slow = Rule {
            delay: ms(60_000),
            ..Rule::default()
        };
        let rules = Book::of_one((ONE, TWO), slow);
        for _ in 0..WAITING_MAX + 10 {
            switch.arrive(ONE, frame(101, 60, 0), &rules, ms(0));
        }
        assert_eq!(switch.waiting.len(), WAITING_MAX);
    }

    proptest! {
        #[test]
        fn any_bytes_under_any_rule_go_out_unchanged_to_one_end_or_nowhere(
            bytes in prop::collection::vec(any::<u8>(), 0..80),
            addressed in any::<bool>(),
            (cut, delay_ms, jitter_ms, bandwidth) in (any::<bool>(), 0_u64..1_000, 0_u64..1_000, any::<u64>()),
            (lost, doubled, overtaken) in (0_u64..1_001, 0_u64..1_001, 0_u64..1_001),
            seed in any::<u64>(),
        ) {
            let mut bytes = bytes;
            if addressed && bytes.len() >= 6 {
                bytes[..6].copy_from_slice(&hardware_address(101));
            }
            let rule = Rule {
                cut,
                delay: ms(delay_ms),
                jitter: ms(jitter_ms),
                bandwidth,
                lost_permille: lost,
                doubled_permille: doubled,
                overtaken_permille: overtaken,
            };
            let mut switch = switch(seed);
            switch.arrive(ONE, bytes.clone(), &Book::of_one((ONE, TWO), rule), ms(9));
            let mut copies = 0;
            while let Some(due) = switch.next_due() {
                prop_assert!(due >= ms(9 + delay_ms));
                let (_, frame) = switch.depart(due).unwrap();
                prop_assert_eq!(&frame, &bytes);
                copies += 1;
            }
            prop_assert!(copies <= 2 && !(cut && copies > 0 && addressed));
        }
    }
}
