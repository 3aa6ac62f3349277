//! Operators' sessions: opened for whom the home cluster's API server has authenticated and let `create operatorsessions`,
//! and read back as the token of an operator of that cluster.
//!
//! Which of the two kinds an operator's token is follows from its issuer alone. Neither is ever tried for the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use dayfly_core::audit::Draft;
use dayfly_core::change::{Change, Outcome};
use dayfly_core::digest::Digest;
use dayfly_core::ids::LeaseId;
use dayfly_core::limits;
use dayfly_core::ports::{Cluster, InvalidToken};
use dayfly_core::secret::Secret;
use dayfly_core::session::Session;
use dayfly_core::time::Timestamp;
use dayfly_core::workload::Identity;

use crate::authenticate::{Bearer, Caller, check_length};
use crate::operator::actor_of;
use crate::{Broker, Error, Reason};

/// Who the home cluster's API server says is asking for a session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionRequest {
    /// The user name; where somebody impersonates another (`--as`), the other's, which is all that the API server tells.
    pub username: String,
    /// The uid; empty where the API server knows none, as with client certificates.
    pub uid: String,
    /// The groups.
    pub groups: Vec<String>,
    /// What else it says.
    pub extra: BTreeMap<String, Vec<String>>,
    /// The request's `Audit-ID`, by which the API server's audit log has it; empty where it sent none.
    pub audit_id: String,
}

/// A session that was opened, and is on disk.
pub struct OpenedSession {
    /// Its id.
    pub id: LeaseId,
    /// Its token.
    pub token: Secret,
    /// Until when it is good.
    pub expires_at: Timestamp,
}

impl Broker {
    /// Opens a session. It is on disk before it is answered.
    ///
    /// # Errors
    /// When nobody in particular is asking, when what the API server says of them is too much for a token, or when it cannot be
    /// signed or recorded.
    pub async fn open_session(&self, request: &SessionRequest) -> Result<OpenedSession, Error> {
        let (Some(tokens), Some(home)) = (&self.sessions, self.session_home()) else {
            return Err(Error::NotFound { message: "this broker opens no sessions".to_owned() });
        };
        check(request)?;
        let SessionRequest { username, uid, groups, extra, audit_id } = request;
        let identity = Identity {
            cluster: home.name.clone(),
            username: username.clone(),
            uid: uid.clone(),
            groups: groups.clone(),
            extra: extra.clone(),
            of_secret: false,
        };
        let draw = self.store.draw()?;
        let issued_at = draw.now.floor_secs();
        let expires_at = issued_at.plus(limits::SESSION_TTL);
        let session = Session { id: draw.id, identity, issued_at, expires_at };
        let signed = tokens.sign(&session).map_err(|error| Error::internal(error.to_string()))?;
        let (by, digest) = (actor_of(&session.identity), Digest::of(signed.token.expose()));
        let event = Draft::session_issued(&session, &by, &signed.key, &digest, audit_id);
        match self.store.commit(Change::Note(Box::new(event))).await? {
            Outcome::Committed(_) => Ok(OpenedSession { id: session.id, token: signed.token, expires_at }),
            _ => Err(Error::internal("the store answered an event of its own with something else")),
        }
    }

    /// Whether a token is to be read as a session: a token of Dayfly's own issuer that an operator presents, where sessions
    /// are served.
    pub(crate) fn is_session(&self, token: &Secret, caller: Caller) -> bool {
        caller == Caller::Operator
            && self.sessions.is_some()
            && token.len() <= limits::TOKEN_BYTES
            && (self.issuer_of)(token).as_ref() == Some(&self.issuer)
    }

    /// Who opened the session whose token this is.
    pub(crate) fn of_session(&self, bearer: Bearer<'_>) -> Result<(&Cluster, Arc<Identity>), Error> {
        let (Some(tokens), Some(home)) = (&self.sessions, self.session_home()) else {
            return Err(Error::internal("a session was read where none are served"));
        };
        check_length(bearer.token)?;
        let bad = |kind, message| Error::Unauthenticated { kind, message };
        let session = tokens.read(bearer.token, self.now()).map_err(|why| bad(why.kind, why.message))?;
        let cluster = &session.identity.cluster;
        if bearer.cluster.is_some_and(|named| named != cluster) {
            let message = "the session is not of the cluster that the call names".to_owned();
            return Err(bad(InvalidToken::UnknownIssuer, message));
        }
        if *cluster != home.name {
            let message =
                format!("the session is of cluster {cluster}, which is not the home cluster: open a new one");
            return Err(bad(InvalidToken::Refused, message));
        }
        Ok((home, Arc::new(session.identity)))
    }

    /// The cluster whose API server opens sessions: the home cluster, or the only one.
    fn session_home(&self) -> Option<&Cluster> {
        match &self.home {
            Some(home) => self.clusters.get(home),
            None => self.clusters.values().next().filter(|_| self.clusters.len() == 1),
        }
    }
}

fn check(request: &SessionRequest) -> Result<(), Error> {
    let SessionRequest { username, uid, groups, extra, audit_id } = request;
    let nobody = username.is_empty()
        || username == "system:anonymous"
        || groups.iter().any(|group| group == "system:unauthenticated");
    if nobody {
        let message =
            "a session is for somebody in particular: the API server has not authenticated this request";
        return Err(Error::denied(Reason::NotAllowed, message));
    }
    // What JSON adds to each: quotes and a comma, and what a backslash does to a byte.
    let written = |text: &str| {
        text.bytes()
            .map(|byte| if byte.is_ascii_control() { 6 } else { 1 + usize::from(b"\"\\".contains(&byte)) })
            .sum::<usize>()
            + 3
    };
    // The event has the key with each of its values.
    let of_values =
        |key: &str, values: &[String]| values.iter().map(|it| key.len() + written(it)).sum::<usize>();
    let of_extra = extra.iter().map(|(key, values)| written(key) + 2 + of_values(key, values)).sum::<usize>();
    let of_groups = groups.iter().map(|group| written(group)).sum::<usize>();
    let bytes = written(username) + written(uid) + of_groups + of_extra;
    if bytes > limits::SESSION_USER_BYTES {
        let message = format!(
            "user, uid, {} groups and extra have {bytes} bytes, and a session's token holds at most {}: ask as somebody of fewer \
             groups (--as, --as-group), or with a service account's token of the operators' audience",
            groups.len(),
            limits::SESSION_USER_BYTES
        );
        return Err(Error::invalid("user", message));
    }
    if audit_id.len() > limits::AUDIT_ID_BYTES {
        return Err(Error::invalid("Audit-ID", format!("at most {} bytes", limits::AUDIT_ID_BYTES)));
    }
    Ok(())
}
