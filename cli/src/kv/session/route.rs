//! Which member is asked next, and when to pause. Pure.
//!
//! A round asks every member at most once: first the one that answered last, or was named as the leader, then the others
//! in the order in which they were given. A named leader that was asked in this round already is asked first in the next
//! one: while a group elects, members name each other or the dead. Between two rounds there is a pause.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::client::is_address;

/// Between two rounds: short at first, since an election takes a fraction of a second.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// What to do to find a member that answers.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::kv) enum Next {
    Ask(String),
    Pause(Duration),
}

/// Where a session stands in its search.
#[derive(Debug)]
pub(in crate::kv) struct Route {
    members: Vec<String>,
    preferred: Option<String>,
    asked: BTreeSet<String>,
    pause: Duration,
}

impl Route {
    pub(in crate::kv) fn new(members: Vec<String>) -> Self {
        Self {
            members,
            preferred: None,
            asked: BTreeSet::new(),
            pause: PAUSE_MIN,
        }
    }

    /// The next step of the search.
    pub(in crate::kv) fn next(&mut self) -> Next {
        let mut candidates = self.preferred.iter().chain(&self.members);
        let next = candidates.find(|member| !self.asked.contains(*member));
        let next = next.cloned();
        if let Some(member) = next {
            self.asked.insert(member.clone());
            return Next::Ask(member);
        }
        self.asked.clear();
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        Next::Pause(pause)
    }

    /// It could not be reached, or its connection broke.
    pub(in crate::kv) fn on_unreachable(&mut self, member: &str) {
        self.asked.insert(member.to_owned());
        self.preferred.take_if(|preferred| preferred == member);
    }

    /// It does not lead; it may have named the one that does.
    pub(in crate::kv) fn on_not_leader(&mut self, member: &str, leader: Option<String>) {
        self.on_unreachable(member);
        let leader = leader.filter(|leader| leader != member && is_address(leader));
        self.preferred = leader.or(self.preferred.take());
    }

    /// It answers.
    pub(in crate::kv) fn on_answer(&mut self, member: &str) {
        self.preferred = Some(member.to_owned());
        self.asked.clear();
        self.pause = PAUSE_MIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route() -> Route {
        Route::new(vec!["a:1".to_owned(), "b:1".to_owned(), "c:1".to_owned()])
    }

    fn ask(route: &mut Route) -> String {
        match route.next() {
            Next::Ask(member) => member,
            Next::Pause(pause) => panic!("paused for {pause:?}"),
        }
    }

    fn pause(route: &mut Route) -> Duration {
        match route.next() {
            Next::Pause(pause) => pause,
            Next::Ask(member) => panic!("asked {member}"),
        }
    }

    #[test]
    fn a_round_asks_everyone_once_and_pauses_grow_up_to_a_bound() {
        let mut route = route();
        let mut longest = Duration::ZERO;
        for _ in 0..10 {
            assert_eq!(
                [ask(&mut route), ask(&mut route), ask(&mut route)],
                ["a:1", "b:1", "c:1"]
            );
            longest = pause(&mut route);
        }
        assert_eq!(longest, PAUSE_MAX);
        route.on_answer("b:1");
        assert_eq!(
            [ask(&mut route), ask(&mut route), ask(&mut route)],
            ["b:1", "a:1", "c:1"]
        );
        assert_eq!(
            pause(&mut route),
            PAUSE_MIN,
            "after an answer the search begins anew"
        );
    }

    #[test]
    fn a_named_leader_is_asked_next_even_if_it_is_no_known_member() {
        let mut route = route();
        ask(&mut route);
        route.on_not_leader("a:1", Some("d:1".to_owned()));
        assert_eq!(ask(&mut route), "d:1");
        route.on_unreachable("d:1");
        assert_eq!([ask(&mut route), ask(&mut route)], ["b:1", "c:1"]);
    }

    #[test]
    fn members_that_name_each_other_or_the_dead_do_not_make_us_spin() {
        let mut route = route();
        ask(&mut route);
        route.on_not_leader("a:1", Some("b:1".to_owned()));
        assert_eq!(ask(&mut route), "b:1");
        route.on_not_leader("b:1", Some("a:1".to_owned()));
        assert_eq!(ask(&mut route), "c:1");
        route.on_not_leader("c:1", Some("a:1".to_owned()));
        pause(&mut route);
        assert_eq!(
            ask(&mut route),
            "a:1",
            "the latest word comes first in the next round"
        );
    }

    #[test]
    fn a_leader_that_breaks_is_asked_last() {
        let mut route = route();
        ask(&mut route);
        route.on_answer("a:1");
        route.on_unreachable("a:1");
        assert_eq!([ask(&mut route), ask(&mut route)], ["b:1", "c:1"]);
        pause(&mut route);
        assert_eq!(ask(&mut route), "a:1");
    }

    #[test]
    fn nonsense_is_not_followed() {
        for leader in [
            None,
            Some(String::new()),
            Some("nowhere".to_owned()),
            Some("a:1".to_owned()),
        ] {
            let mut route = route();
            ask(&mut route);
            route.on_not_leader("a:1", leader);
            assert_eq!(ask(&mut route), "b:1");
        }
    }
}
