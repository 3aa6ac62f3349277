//! Token Status Lists (draft-ietf-oauth-status-list): a bit for each token, in lists that anyone may fetch.

use std::fmt;
use std::str::FromStr;

use crate::signing::TargetRef;

/// Places of a list. Half of them are given out, each to one token and never again.
pub const PLACES: u32 = 1 << 17;

/// Which list of a target's: random, so that it tells nothing of how many there are, and no two broker's starts have one
/// in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatusListId(pub u64);

impl fmt::Display for StatusListId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A text is no list's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("16 lower-case hexadecimal digits")]
pub struct NotAList;

impl FromStr for StatusListId {
    type Err = NotAList;

    fn from_str(text: &str) -> Result<Self, NotAList> {
        let id = u64::from_str_radix(text, 16).map(Self).map_err(|_| NotAList)?;
        // One list has one URL.
        if id.to_string() == text { Ok(id) } else { Err(NotAList) }
    }
}

/// Where a token's bit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusEntry {
    /// In which list of its target's.
    pub list: StatusListId,
    /// At which place, below [`PLACES`].
    pub index: u32,
}

/// A list's URL: the `uri` of its tokens' claims, and its own `sub`.
pub fn uri(issuer: &str, target: &TargetRef, list: StatusListId) -> String {
    format!("{}/status/{target}/{list}", issuer.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_one_url() {
        let target = TargetRef { cluster: "east".parse().unwrap(), target: "orders".parse().unwrap() };
        let id = StatusListId(0xa1);
        let url = "https://dayfly.example/status/east/orders/00000000000000a1";
        assert_eq!(uri("https://dayfly.example/", &target, id), url);
        assert_eq!("00000000000000a1".parse(), Ok(id));
        for other in ["a1", "00000000000000A1", "+0000000000000a1", "000000000000000a1", ""] {
            assert_eq!(other.parse::<StatusListId>(), Err(NotAList), "{other}");
        }
    }
}
