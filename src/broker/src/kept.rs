//! The last denials of workloads, one by one, so that each can be explained by the id that it was answered with. In memory
//! only: what is older is in the audit log's counts ([`crate::denials`]).

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use dayfly_core::ids::OwnerName;
use dayfly_core::time::Timestamp;
use dayfly_core::workload::Workload;
use dayfly_policy::Told;
use dayfly_policy::explain::shortened;

/// Denials kept.
pub const KEPT: usize = 10_000;
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
    /// The number of the first that is kept.
    first: u64,
    kept: VecDeque<Arc<KeptDenial>>,
}

impl KeptDenials {
    /// Keeps one, in the place of the oldest where there are too many; gives its id.
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
        if ring.kept.len() >= KEPT {
            ring.kept.pop_front();
            ring.first += 1;
        }
        let number = ring.first + u64::try_from(ring.kept.len()).unwrap_or(u64::MAX);
        let id = DenialId { at, number };
        ring.kept.push_back(Arc::new(KeptDenial { id, workload, owners, asked, told }));
        id
    }

    /// The denial of this id, while it is kept. One of an earlier start has another moment.
    pub(crate) fn get(&self, id: DenialId) -> Option<Arc<KeptDenial>> {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = usize::try_from(id.number.checked_sub(ring.first)?).ok()?;
        ring.kept.get(place).filter(|kept| kept.id == id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use dayfly_core::lease::Lease;

    use super::*;

    #[test]
    fn the_last_ones_are_kept_and_no_more() {
        let kept = KeptDenials::default();
        let at = Timestamp::from_secs(60);
        let keep = |n: usize| {
            let told = Told::refused("workload", "POD_GONE", format!("pod {n}"), "ask again");
            kept.keep(at, Lease::test(1).workload, Vec::new(), &"x".repeat(2000), told)
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
