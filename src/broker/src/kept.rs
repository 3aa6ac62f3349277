//! The last denials of workloads, one by one, so that each can be explained by the id that it was answered with. In memory
//! only: what is older is in the audit log's counts ([`crate::denials`]).

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use dayfly_core::ids::{ClusterName, Namespace, OwnerName};
use dayfly_core::time::Timestamp;
use dayfly_core::workload::Workload;
use dayfly_policy::Told;
use dayfly_policy::explain::shortened;

/// Denials kept.
pub const KEPT: usize = 10_000;
/// Of one namespace, so that none pushes out the others'.
pub const SHARE: usize = KEPT / 4;
/// The most bytes that are kept of what was asked for.
const ASKED_BYTES: usize = 512;

/// A denial's id: its moment, and its number since the broker started. It is no secret, and gives no right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DenialId {
    at: Timestamp,
    number: u64,
}

/// A text is no denial's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a denial's id: two hexadecimal numbers with a dash between them")]
pub struct BadDenialId;

impl DenialId {
    /// When it was denied, by the broker's clock.
    pub const fn at(self) -> Timestamp {
        self.at
    }
}

impl fmt::Display for DenialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}-{:x}", self.at.as_millis(), self.number)
    }
}

impl FromStr for DenialId {
    type Err = BadDenialId;

    fn from_str(text: &str) -> Result<Self, BadDenialId> {
        let (at, number) = text.split_once('-').ok_or(BadDenialId)?;
        let hex = |text: &str| u64::from_str_radix(text, 16).map_err(|_| BadDenialId);
        let id = Self { at: Timestamp::from_millis(hex(at)?), number: hex(number)? };
        // As it is written, and no other way.
        if id.to_string() == text { Ok(id) } else { Err(BadDenialId) }
    }
}

/// A denial that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptDenial {
    pub(crate) id: DenialId,
    pub(crate) workload: Workload,
    /// Who answered for it then; empty where that is not known, or nobody did.
    pub(crate) owners: Vec<OwnerName>,
    pub(crate) asked: String,
    pub(crate) told: Told,
}

/// The last [`KEPT`] of them.
#[derive(Default)]
pub(crate) struct KeptDenials(Mutex<Ring>);

#[derive(Default)]
struct Ring {
    /// The number of the next.
    next: u64,
    /// By number, so the oldest first.
    kept: BTreeMap<u64, Arc<KeptDenial>>,
    /// The numbers of each namespace's, the oldest first.
    of: HashMap<(ClusterName, Namespace), VecDeque<u64>>,
}

impl Ring {
    fn push(&mut self, number: u64, denial: KeptDenial) {
        let place = place_of(&denial.workload);
        let own = self.of.get(&place).filter(|numbers| numbers.len() >= SHARE);
        if let Some(oldest) = own.and_then(VecDeque::front).copied() {
            self.forget(oldest);
        } else if self.kept.len() >= KEPT
            && let Some(oldest) = self.kept.keys().next().copied()
        {
            self.forget(oldest);
        }
        self.of.entry(place).or_default().push_back(number);
        self.kept.insert(number, Arc::new(denial));
    }

    /// Forgets one that is its namespace's oldest.
    fn forget(&mut self, number: u64) {
        let Some(place) = self.kept.remove(&number).map(|denial| place_of(&denial.workload)) else { return };
        if let Entry::Occupied(mut numbers) = self.of.entry(place) {
            numbers.get_mut().pop_front();
            if numbers.get().is_empty() {
                numbers.remove();
            }
        }
    }
}

fn place_of(workload: &Workload) -> (ClusterName, Namespace) {
    (workload.cluster.clone(), workload.service_account.namespace.clone())
}

impl KeptDenials {
    /// Keeps one, in the place of its namespace's oldest where that has its share, else of the oldest of all where there are
    /// too many; gives its id.
    pub(crate) fn keep(
        &self,
        at: Timestamp,
        workload: Workload,
        owners: Vec<OwnerName>,
        asked: &str,
        told: Told,
    ) -> DenialId {
        let told = told.kept();
        let asked = shortened(asked, ASKED_BYTES);
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = ring.next;
        ring.next += 1;
        let id = DenialId { at, number };
        ring.push(number, KeptDenial { id, workload, owners, asked, told });
        id
    }

    /// The denial of this id, while it is kept. One of an earlier start has another moment.
    pub(crate) fn get(&self, id: DenialId) -> Option<Arc<KeptDenial>> {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ring.kept.get(&id.number).filter(|kept| kept.id == id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use dayfly_core::lease::Lease;

    use super::*;

    #[test]
    fn no_namespace_pushes_out_the_others_denials() {
        let kept = KeptDenials::default();
        let at = Timestamp::from_secs(60);
        let keep = |namespace: &str| {
            let mut workload = Lease::test(1).workload;
            workload.service_account.namespace = namespace.parse().unwrap();
            kept.keep(
                at,
                workload,
                Vec::new(),
                "",
                Told::refused("workload", "POD_GONE", "gone", "ask again"),
            )
        };
        let quiet = keep("quiet");
        let loud: Vec<_> = (0..2 * KEPT).map(|_| keep("loud")).collect();
        assert!(kept.get(quiet).is_some());
        let (gone, there) = loud.split_at(2 * KEPT - SHARE);
        assert!(
            gone.iter().all(|id| kept.get(*id).is_none()) && there.iter().all(|id| kept.get(*id).is_some())
        );
        // Many of them together do: the oldest of all goes first.
        for n in 0..4 * SHARE {
            keep(&format!("n{}", n % 8));
        }
        assert!(kept.get(quiet).is_none());
        let ring = kept.0.lock().unwrap();
        assert_eq!(ring.kept.len(), KEPT);
        assert_eq!(ring.of.values().map(VecDeque::len).sum::<usize>(), KEPT);
    }

    #[test]
    fn the_last_ones_are_kept_and_no_more() {
        let kept = KeptDenials::default();
        let at = Timestamp::from_secs(60);
        let keep = |n: usize| {
            let told = Told::refused("workload", "POD_GONE", format!("pod {n}"), "ask again");
            let mut workload = Lease::test(1).workload;
            workload.service_account.namespace = format!("n{}", n % 8).parse().unwrap();
            kept.keep(at, workload, Vec::new(), &"x".repeat(2000), told)
        };
        let ids: Vec<_> = (0..KEPT + 5).map(keep).collect();
        assert_eq!(kept.0.lock().unwrap().kept.len(), KEPT);
        assert_eq!(ids.iter().filter(|id| kept.get(**id).is_none()).count(), 5);
        let last = *ids.last().unwrap();
        assert_eq!(kept.get(last).unwrap().asked.len(), ASKED_BYTES);
        assert!(kept.get(last).unwrap().told.to_string().contains(&format!("pod {}", KEPT + 4)));
        assert_eq!(last.to_string().parse(), Ok(last));
        let of_another_start = DenialId { at: at.plus(std::time::Duration::from_secs(1)), ..last };
        assert!(kept.get(of_another_start).is_none());
        for wrong in ["", "1", "1-", "g-1", "00000000ea60-0001", "+0000000ea60-1"] {
            assert!(wrong.parse::<DenialId>().is_err(), "{wrong}");
        }
    }
}
