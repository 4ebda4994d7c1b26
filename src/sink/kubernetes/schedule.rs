//! The order in which the looks and the acts of a batch are begun.
//!
//! A server answers a read from memory and has a write wait for its disk, so both go on side by side.
//! Looks are ahead of acts by so much that one commit of the ledger covers many intentions, and not by
//! more: what was seen is to be new when something is written on it.
//!
//! Not here: what a look or an act is, and who carries it out.

use std::collections::VecDeque;

/// Intentions that are kept by one commit, unless more calls are made at a time.
const GROUP: usize = 16;

/// Groups that are looked at and not acted on: one is being announced, of one the acts are begun, one is
/// looked at.
const AHEAD: usize = 3;

/// What to begin, by the delivery's place in the batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Task<P> {
    Look(usize),
    Act(usize, P),
}

/// How far a batch is; `P` is what a look has made known.
#[derive(Debug)]
pub struct Schedule<P> {
    at_a_time: usize,
    group: usize,
    /// Of looks: the next one, and the end.
    next: usize,
    count: usize,
    looking: usize,
    acting: usize,
    /// Acts that are to be announced before they are begun.
    unannounced: Vec<(usize, P)>,
    /// Those that are being announced; one announcement at a time.
    announcing: Vec<(usize, P)>,
    ready: VecDeque<(usize, P)>,
}

impl<P> Schedule<P> {
    /// Of `count` deliveries, with at most so many tasks at a time.
    pub fn new(count: usize, at_a_time: usize) -> Self {
        Schedule {
            at_a_time,
            group: GROUP.max(at_a_time),
            next: 0,
            count,
            looking: 0,
            acting: 0,
            unannounced: Vec::new(),
            announcing: Vec::new(),
            ready: VecDeque::new(),
        }
    }

    /// What is to be begun now; to be asked until there is nothing.
    pub fn begin(&mut self) -> Option<Task<P>> {
        if self.looking + self.acting == self.at_a_time {
            return None;
        }
        let waiting = self.unannounced.len() + self.announcing.len() + self.ready.len();
        if self.next < self.count && self.looking + waiting < AHEAD * self.group {
            self.next += 1;
            self.looking += 1;
            return Some(Task::Look(self.next - 1));
        }
        let (at, plan) = self.ready.pop_front()?;
        self.acting += 1;
        Some(Task::Act(at, plan))
    }

    /// A look has ended with an act that `is_announced` first, or not.
    pub fn looked(&mut self, at: usize, plan: P, is_announced: bool) {
        self.looking -= 1;
        match is_announced {
            true => self.unannounced.push((at, plan)),
            false => self.ready.push_back((at, plan)),
        }
    }

    /// The acts that are to be announced together from now on, beside everything else; `None` while
    /// others are, or while more are about to come.
    pub fn announce(&mut self) -> Option<&[(usize, P)]> {
        let is_last = self.next == self.count && self.looking == 0;
        let is_worth_it = self.unannounced.len() >= if is_last { 1 } else { self.group };
        if !is_worth_it || !self.announcing.is_empty() {
            return None;
        }
        self.announcing = std::mem::take(&mut self.unannounced);
        Some(&self.announcing)
    }

    /// All of them were.
    pub fn announced(&mut self) {
        self.ready.extend(self.announcing.drain(..));
    }

    /// An act has ended.
    pub fn acted(&mut self) {
        self.acting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a batch in which each thing takes as many turns as said, and tells what was begun, an
    /// announcement by how many it was for; the most tasks at a time, too.
    fn run(count: usize, at_a_time: usize, takes: [usize; 3]) -> (Vec<String>, usize) {
        let [look, announce, act] = takes;
        let mut schedule = Schedule::new(count, at_a_time);
        let (mut told, mut most, mut now) = (Vec::new(), 0, 0);
        // Without a task: an announcement.
        let mut running: Vec<(usize, Option<Task<()>>)> = Vec::new();
        loop {
            if let Some(group) = schedule.announce() {
                told.push(format!("announce {}", group.len()));
                running.push((now + announce, None));
            }
            while let Some(task) = schedule.begin() {
                let (word, takes) = match &task {
                    Task::Look(at) => (format!("look {at}"), look),
                    Task::Act(at, ()) => (format!("act {at}"), act),
                };
                told.push(word);
                running.push((now + takes, Some(task)));
            }
            most = most.max(running.iter().filter(|it| it.1.is_some()).count());
            let Some(first) = running.iter().enumerate().min_by_key(|(_, it)| it.0) else { break };
            let (at, task) = running.remove(first.0);
            now = at;
            match task {
                Some(Task::Look(at)) => schedule.looked(at, (), at % 8 > 0),
                Some(Task::Act(..)) => schedule.acted(),
                None => schedule.announced(),
            }
        }
        (told, most)
    }

    #[test]
    fn each_delivery_is_looked_at_announced_and_acted_on_once() {
        for (count, at_a_time) in [(0, 1), (1, 1), (1, 8), (7, 3), (100, 1), (300, 8), (300, 40)] {
            let (told, most) = run(count, at_a_time, [3, 5, 9]);
            let all = |word: &str| {
                let mut places: Vec<usize> = told
                    .iter()
                    .filter_map(|it| it.strip_prefix(word))
                    .map(|it| it.parse().unwrap())
                    .collect();
                places.sort_unstable();
                places
            };
            let each: Vec<usize> = (0..count).collect();
            assert_eq!((all("look "), all("act ")), (each.clone(), each), "{count}, {at_a_time}");
            assert!(most <= at_a_time, "{most} of {at_a_time}");
            let announced: usize = all("announce ").into_iter().sum();
            assert_eq!(announced, (0..count).filter(|at| at % 8 > 0).count());
        }
    }

    #[test]
    fn a_lone_delivery_is_announced_without_waiting_for_others() {
        let mut schedule = Schedule::new(1, 8);
        assert_eq!(schedule.begin(), Some(Task::Look(0)));
        assert_eq!(schedule.begin(), None);
        schedule.looked(0, "plan", true);
        assert_eq!(schedule.begin(), None);
        assert_eq!(schedule.announce(), Some([(0, "plan")].as_slice()));
        assert_eq!(schedule.announce(), None);
        assert_eq!(schedule.begin(), None);
        schedule.announced();
        assert_eq!(schedule.begin(), Some(Task::Act(0, "plan")));
        schedule.acted();
        assert_eq!(schedule.announce(), None);
        assert_eq!(schedule.begin(), None);
    }

    #[test]
    fn looks_are_a_few_groups_ahead_and_then_one_is_begun_for_each_act() {
        let (told, _) = run(300, 8, [1, 2, 2]);
        let places = |word: &str| {
            let is_one = |it: &(usize, &String)| it.1.starts_with(word);
            told.iter().enumerate().filter(is_one).map(|it| it.0).collect::<Vec<_>>()
        };
        let (looks, acts) = (places("look"), places("act"));
        // Those that are announced by nobody may go before.
        for (nth, act) in acts.iter().enumerate() {
            let looked = looks.iter().filter(|look| *look < act).count();
            assert!(looked <= nth + AHEAD * GROUP, "{looked} looks before act {nth}");
        }
        let end_of_looks = looks.last().unwrap();
        let beside = acts.iter().filter(|act| *act < end_of_looks).count();
        assert!(beside >= 300 - AHEAD * GROUP, "{beside} acts were begun beside looks");
    }

    #[test]
    fn groups_are_announced_together() {
        let (told, _) = run(256, 8, [1, 3, 1]);
        let groups: Vec<&String> = told.iter().filter(|it| it.starts_with("announce")).collect();
        assert!(groups.len() <= 256 / GROUP, "{groups:?}");
    }
}
