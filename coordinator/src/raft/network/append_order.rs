//! Which answers of a follower openraft may hear, and when. Pure.
//!
//! openraft renews its lease by these answers: one that acknowledges the log up to some entry counts for every request up
//! to there, *by the time at which the last of them was given to us*. A request without entries ends where the one before
//! it does. So an old answer, read late, would count for a request without entries that was given to us just now: a leader
//! that was stopped for seconds, and has been replaced, would find old answers in its sockets, take its lease for renewed,
//! and answer reads from its old state.
//!
//! An answer that comes late is therefore held back while a later request without entries has none. Answers come in order,
//! so one to the latest of those releases all.

use std::collections::VecDeque;
use std::time::Duration;

use flott_node::Mutant;

/// The requests of one session that have no answer yet, and answers that are held back. `T` is an answer.
#[derive(Debug)]
pub(super) struct Order<T> {
    in_flight: VecDeque<Sent<T>>,
    /// What requests that found company are to be answered, once it is.
    accompanying: Vec<T>,
    held: Vec<T>,
    /// By so much a lease may seem renewed too late.
    tolerance: Duration,
}

#[derive(Debug)]
struct Sent<T> {
    at: Duration,
    without_entries: bool,
    /// What to answer to the requests that it was sent for as well: they came before it.
    accompanying: Vec<T>,
}

impl<T> Order<T> {
    pub(super) fn new(tolerance: Duration) -> Self {
        Self {
            in_flight: VecDeque::new(),
            accompanying: Vec::new(),
            held: Vec::new(),
            tolerance,
        }
    }

    /// Requests on their way.
    pub(super) fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// When the oldest of them was sent.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.in_flight.front().map(|sent| sent.at)
    }

    /// A request without entries is not sent: the next one stands for it, and it is then answered so.
    pub(super) fn accompanies(&mut self, answer: T) {
        self.accompanying.push(answer);
    }

    pub(super) fn sent(&mut self, at: Duration, without_entries: bool) {
        let accompanying = std::mem::take(&mut self.accompanying);
        self.in_flight.push_back(Sent {
            at,
            without_entries,
            accompanying,
        });
    }

    /// The oldest request is answered; `waiting`: there is one without entries that is not sent yet. What openraft may
    /// hear now. None if there was no request.
    pub(super) fn answered(&mut self, now: Duration, answer: T, waiting: bool) -> Option<Vec<T>> {
        let sent = self.in_flight.pop_front()?;
        self.held.extend(sent.accompanying);
        self.held.push(answer);
        let later_without_entries = waiting
            || !self.accompanying.is_empty()
            || self
                .in_flight
                .iter()
                .any(|later| later.without_entries || !later.accompanying.is_empty());
        let late = now.saturating_sub(sent.at) > self.tolerance;
        if late && later_without_entries && !Mutant::OldAnswersCount.is_planted() {
            return Some(Vec::new());
        }
        Some(std::mem::take(&mut self.held))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        /// openraft gives a request with so many entries.
        Pull(u64),
        /// The one without entries has waited long enough.
        Alone,
        Answer,
        /// Time passes, or the process is stopped.
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => (1u64..3).prop_map(Step::Pull),
            3 => Just(Step::Pull(0)),
            2 => Just(Step::Alone),
            4 => Just(Step::Answer),
            3 => (0u64..30).prop_map(Step::Pass),
            1 => (500u64..5_000).prop_map(Step::Pass),
        ]
    }

    const TOLERANCE: u64 = 10;

    /// A session as [`super::super::append_stream`] runs it, with openraft at its other end.
    struct Session {
        order: Order<u64>,
        now: u64,
        end: u64,
        waiting: Option<u64>,
        /// When requests were really sent, and where each ends.
        on_the_way: VecDeque<(u64, u64)>,
        /// What openraft remembers: where a request ends, and when it was given.
        remembered: VecDeque<(u64, u64)>,
        /// When the last request that the follower has really answered was sent.
        answered: Option<u64>,
    }

    impl Session {
        fn time(&self) -> Duration {
            Duration::from_millis(self.now)
        }

        fn send(&mut self, end: u64, without_entries: bool) {
            self.order.sent(self.time(), without_entries);
            self.on_the_way.push_back((end, self.now));
        }

        fn pull(&mut self, entries: u64) {
            let begin = self.end;
            self.end += entries;
            self.remembered.push_back((self.end, self.now));
            if let Some(before) = self.waiting.take() {
                self.order.accompanies(before);
            }
            match entries {
                0 => self.waiting = Some(begin),
                _ => self.send(self.end, false),
            }
        }

        /// What openraft takes for the time of the last acknowledged request.
        fn answer(&mut self) -> Option<u64> {
            let (end, at) = self.on_the_way.pop_front()?;
            self.answered = Some(at);
            let told = self
                .order
                .answered(self.time(), end, self.waiting.is_some());
            let mut counted = None;
            for matching in told.unwrap() {
                while let Some((end, given)) = self.remembered.front().copied()
                    && end <= matching
                {
                    counted = Some(given);
                    self.remembered.pop_front();
                }
            }
            counted
        }
    }

    proptest! {
        /// No lease is renewed by more than the tolerance beyond what the follower has confirmed; and everything is told
        /// in the end.
        #[test]
        fn an_old_answer_never_counts_for_a_new_request(steps in prop::collection::vec(step(), 1..120)) {
            let mut session = Session {
                order: Order::new(Duration::from_millis(TOLERANCE)),
                now: 0,
                end: 0,
                waiting: None,
                on_the_way: VecDeque::new(),
                remembered: VecDeque::new(),
                answered: None,
            };
            let check = |session: &mut Session| {
                if let Some(counted) = session.answer() {
                    let confirmed = session.answered.unwrap() + TOLERANCE;
                    assert!(counted <= confirmed, "renewed at {counted}, confirmed until {confirmed}");
                }
            };
            for step in steps {
                match step {
                    Step::Pull(entries) => session.pull(entries),
                    Step::Alone => {
                        if session.waiting.take().is_some() {
                            let end = session.end;
                            session.send(end, true);
                        }
                    }
                    Step::Answer => check(&mut session),
                    Step::Pass(ms) => session.now += ms,
                }
            }
            if session.waiting.take().is_some() {
                let end = session.end;
                session.send(end, true);
            }
            while !session.on_the_way.is_empty() {
                check(&mut session);
            }
            prop_assert!(session.remembered.is_empty(), "all is told: {:?}", session.remembered);
        }
    }
}
