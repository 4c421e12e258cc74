//! At most one leader in each term, whoever is asked.

use std::collections::BTreeMap;

/// Who was said to lead in which term.
#[derive(Clone, Debug, Default)]
pub struct Leaders {
    terms: BTreeMap<u64, (u64, u64)>,
    conflicts: Vec<String>,
}

impl Leaders {
    /// Member `witness` says that `leader` leads in `term`; 0: that nobody does, as far as it knows.
    pub fn observe(&mut self, witness: u64, term: u64, leader: u64) {
        if leader == 0 {
            return;
        }
        let (known, first) = *self.terms.entry(term).or_insert((leader, witness));
        if known != leader {
            self.conflicts.push(format!(
                "two leaders in term {term}: {known}, says member {first}, and {leader}, says member {witness}"
            ));
        }
    }

    /// Terms in which somebody was seen to lead.
    pub fn terms(&self) -> usize {
        self.terms.len()
    }

    /// What must not be.
    pub fn conflicts(&self) -> &[String] {
        &self.conflicts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_leaders_in_one_term_are_found() {
        let mut leaders = Leaders::default();
        for (witness, term, leader) in [(1, 1, 1), (2, 1, 1), (3, 1, 0), (2, 2, 2), (1, 1, 1)] {
            leaders.observe(witness, term, leader);
        }
        assert_eq!((leaders.terms(), leaders.conflicts().len()), (2, 0));
        leaders.observe(3, 2, 3);
        assert!(leaders.conflicts()[0].contains("term 2: 2, says member 2, and 3, says member 3"));
    }
}
