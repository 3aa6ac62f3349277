//! Page tokens: where the next page begins, in this incarnation of the store. And where a watch is resumed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dayfly_api::rejection::Rejection;
use dayfly_api::v1::ErrorReason;
use dayfly_broker::{EventNews, EventResume, Resume};
use dayfly_core::ids::{ClusterName, Incarnation, LeaseId, Namespace, OwnerName, Position, RuleId};
use tonic::Status;

/// Leases after this id.
pub(super) struct LeaseToken {
    pub(super) after: LeaseId,
}

/// Revocations before this one.
pub(super) struct RevocationToken {
    pub(super) before: RuleId,
}

/// Owners after this one.
pub(super) struct OwnerToken {
    pub(super) after: (ClusterName, OwnerName),
}

/// Namespaces without Owner after this one.
pub(super) struct UnownedToken {
    pub(super) after: (ClusterName, Namespace),
}

/// Events from this position on.
pub(super) struct EventToken {
    pub(super) at: Position,
}

/// Where a watch over events is resumed; the use case knows whether it can be.
pub(super) struct EventsToken;

/// Where a watch over revocations is resumed; the use case knows whether it can be.
pub(super) struct RevocationsToken;

impl RevocationsToken {
    /// None for a watch from the start.
    pub(super) fn read(text: &str) -> Result<Option<Resume>, Status> {
        if text.is_empty() {
            return Ok(None);
        }
        let read = || {
            let decoded = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
            let mut parts = decoded.strip_prefix("revocations:")?.splitn(3, ':');
            let incarnation = Incarnation(parts.next()?.parse().ok()?);
            let position = Position::new(parts.next()?.parse().ok()?);
            Some(Resume { incarnation, position, told_of: parts.next()?.parse().ok()? })
        };
        let message = "`resume` is not one of this broker's: call again without it";
        let not_ours = || Rejection::new(ErrorReason::ResumeOutOfRange, message).into_status();
        read().map(Some).ok_or_else(not_ours)
    }

    pub(super) fn write(resume: &Resume) -> String {
        token("revocations", resume.incarnation, &format!("{}:{}", resume.position, resume.told_of))
    }
}

impl EventsToken {
    /// None for a watch that begins.
    pub(super) fn read(text: &str) -> Result<Option<EventResume>, Status> {
        if text.is_empty() {
            return Ok(None);
        }
        let read = || {
            let decoded = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
            let (incarnation, position) = decoded.strip_prefix("watched-events:")?.split_once(':')?;
            let incarnation = Incarnation(incarnation.parse().ok()?);
            Some(EventResume { incarnation, position: Position::new(position.parse().ok()?) })
        };
        let message = "`resume` is not one of this broker's: call again without it, from a position";
        let not_ours = || Rejection::new(ErrorReason::ResumeOutOfRange, message).into_status();
        read().map(Some).ok_or_else(not_ours)
    }

    pub(super) fn write(news: &EventNews) -> String {
        token("watched-events", news.incarnation, &news.position.to_string())
    }
}

impl EventToken {
    pub(super) fn read(text: &str, incarnation: Incarnation) -> Result<Option<Self>, Status> {
        let Some(fields) = fields(text, "events", incarnation)? else { return Ok(None) };
        let at = Position::new(fields.parse().map_err(|_| not_ours())?);
        Ok(Some(Self { at }))
    }

    pub(super) fn write(&self, incarnation: Incarnation) -> String {
        token("events", incarnation, &self.at.to_string())
    }
}

impl UnownedToken {
    pub(super) fn read(text: &str, incarnation: Incarnation) -> Result<Option<Self>, Status> {
        let Some(fields) = fields(text, "unowned", incarnation)? else { return Ok(None) };
        let (cluster, namespace) = fields.split_once('/').ok_or_else(not_ours)?;
        let after = (cluster.parse().map_err(|_| not_ours())?, namespace.parse().map_err(|_| not_ours())?);
        Ok(Some(Self { after }))
    }

    pub(super) fn write(&self, incarnation: Incarnation) -> String {
        token("unowned", incarnation, &format!("{}/{}", self.after.0, self.after.1))
    }
}

impl LeaseToken {
    pub(super) fn read(text: &str, incarnation: Incarnation) -> Result<Option<Self>, Status> {
        let Some(fields) = fields(text, "leases", incarnation)? else { return Ok(None) };
        let after = fields.parse().map_err(|_| not_ours())?;
        Ok(Some(Self { after }))
    }

    pub(super) fn write(&self, incarnation: Incarnation) -> String {
        token("leases", incarnation, &self.after.to_string())
    }
}

impl RevocationToken {
    pub(super) fn read(text: &str, incarnation: Incarnation) -> Result<Option<Self>, Status> {
        let Some(fields) = fields(text, "revocations", incarnation)? else { return Ok(None) };
        let before = fields.parse().map_err(|_| not_ours())?;
        Ok(Some(Self { before }))
    }

    pub(super) fn write(&self, incarnation: Incarnation) -> String {
        token("revocations", incarnation, &self.before.to_string())
    }
}

impl OwnerToken {
    pub(super) fn read(text: &str, incarnation: Incarnation) -> Result<Option<Self>, Status> {
        let Some(fields) = fields(text, "owners", incarnation)? else { return Ok(None) };
        let (cluster, owner) = fields.split_once('/').ok_or_else(not_ours)?;
        let after = (cluster.parse().map_err(|_| not_ours())?, owner.parse().map_err(|_| not_ours())?);
        Ok(Some(Self { after }))
    }

    pub(super) fn write(&self, incarnation: Incarnation) -> String {
        token("owners", incarnation, &format!("{}/{}", self.after.0, self.after.1))
    }
}

fn token(list: &str, incarnation: Incarnation, fields: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{list}:{}:{fields}", incarnation.0))
}

/// What a token of this list and incarnation says; none for the first page.
fn fields(text: &str, list: &str, incarnation: Incarnation) -> Result<Option<String>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let decoded = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let decoded = decoded.ok_or_else(not_ours)?;
    let fields = decoded.strip_prefix(&format!("{list}:{}:", incarnation.0)).ok_or_else(not_ours)?;
    Ok(Some(fields.to_owned()))
}

fn not_ours() -> Status {
    let message = "the page token is not of this list in this incarnation of the store: list from the start";
    Rejection::new(ErrorReason::PageToken, message).with("field", "page_token").into_status()
}

#[cfg(test)]
mod tests {
    use dayfly_core::digest::Digest;

    use super::*;

    #[test]
    fn tokens_are_of_one_list_and_incarnation() {
        let id = LeaseId::from_u128(7);
        let text = LeaseToken { after: id }.write(Incarnation(2));
        assert_eq!(LeaseToken::read(&text, Incarnation(2)).ok().flatten().map(|token| token.after), Some(id));
        assert!(LeaseToken::read(&text, Incarnation(3)).is_err());
        assert!(OwnerToken::read(&text, Incarnation(2)).is_err());
        assert!(RevocationToken::read(&text, Incarnation(2)).is_err());
        assert!(LeaseToken::read("%%%", Incarnation(2)).is_err());
        assert!(matches!(LeaseToken::read("", Incarnation(2)), Ok(None)));
        let after = ("east".parse().unwrap(), "payments".parse().unwrap());
        let text = OwnerToken { after }.write(Incarnation(1));
        let read = OwnerToken::read(&text, Incarnation(1)).ok().flatten().unwrap().after;
        assert_eq!(read.1.as_str(), "payments");
    }

    #[test]
    fn where_events_go_on_reads_back() {
        let (incarnation, position) = (Incarnation(2), Position::new(77));
        let text = EventToken { at: position }.write(incarnation);
        assert_eq!(EventToken::read(&text, incarnation).ok().flatten().map(|token| token.at), Some(position));
        assert!(EventToken::read(&text, Incarnation(3)).is_err());
        assert_eq!(EventsToken::read(&text).unwrap_err().code(), tonic::Code::OutOfRange, "it is a page's");
        let resume = EventsToken::write(&EventNews { events: Vec::new(), position, incarnation });
        assert_eq!(EventsToken::read(&resume).ok(), Some(Some(EventResume { incarnation, position })));
        assert!(matches!(EventsToken::read(""), Ok(None)));
    }

    #[test]
    fn where_a_watch_is_resumed_reads_back() {
        let (incarnation, position) = (Incarnation(2), Position::new(77));
        let resume = Resume { incarnation, position, told_of: Digest::of(b"targets") };
        let text = RevocationsToken::write(&resume);
        assert_eq!(RevocationsToken::read(&text).ok(), Some(Some(resume)));
        assert_eq!(RevocationsToken::read("").ok(), Some(None));
        let leases = LeaseToken { after: LeaseId::from_u128(7) }.write(incarnation);
        for bad in ["%%%", &leases, &text[..text.len() - 4]] {
            assert_eq!(RevocationsToken::read(bad).unwrap_err().code(), tonic::Code::OutOfRange);
        }
    }
}
