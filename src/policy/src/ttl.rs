//! A credential's life as text: `300s`, `15m`, `1h`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A length of time in whole seconds, written as a number and one unit: `s`, `m` or `h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ttl(Duration);

impl Ttl {
    /// So many seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// As a duration.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

/// The text is not a length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a length of time is a whole number and one unit, s, m or h, such as 300s, 15m or 1h")]
pub struct NotATtl;

impl FromStr for Ttl {
    type Err = NotATtl;

    fn from_str(text: &str) -> Result<Self, NotATtl> {
        let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or(NotATtl)?;
        let seconds_each = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(NotATtl),
        };
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NotATtl);
        }
        let number: u64 = number.parse().map_err(|_| NotATtl)?;
        number.checked_mul(seconds_each).map(Self::from_secs).ok_or(NotATtl)
    }
}

impl TryFrom<String> for Ttl {
    type Error = NotATtl;

    fn try_from(text: String) -> Result<Self, NotATtl> {
        text.parse()
    }
}

impl From<Ttl> for String {
    fn from(ttl: Ttl) -> Self {
        ttl.to_string()
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            secs if secs > 0 && secs.is_multiple_of(3600) => write!(f, "{}h", secs / 3600),
            secs if secs > 0 && secs.is_multiple_of(60) => write!(f, "{}m", secs / 60),
            secs => write!(f, "{secs}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_and_parses() {
        for (text, secs) in [("300s", 300), ("15m", 900), ("1h", 3600), ("0s", 0), ("90s", 90)] {
            assert_eq!(text.parse(), Ok(Ttl::from_secs(secs)), "{text}");
            assert_eq!(Ttl::from_secs(secs).to_string().parse(), Ok(Ttl::from_secs(secs)));
        }
        for bad in ["", "s", "15", "15M", "-1s", "+1s", "1.5h", "1h30m", "1 h", "99999999999999999999h", "5ö"]
        {
            assert_eq!(bad.parse::<Ttl>(), Err(NotATtl), "{bad}");
        }
    }
}
