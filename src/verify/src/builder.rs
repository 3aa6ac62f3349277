//! Setting a verifier up.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dayfly_client::{Client, TokenFile, TokenSource};
use dayfly_core::clock::{SystemClock, SystemRng};
use dayfly_core::ids::{Audience, Scope};
use dayfly_core::limits::Limits;
use dayfly_core::ports::Clock;
use dayfly_jose::KeySet;
use tokio::runtime::Handle;

use crate::feed::Feed;
use crate::keys::Keys;
use crate::profile::{Expected, Profile};
use crate::state::State;
use crate::verifier::{Inner, Verifier};

/// Sets a [`Verifier`] up; made by [`Verifier::builder`].
#[must_use]
pub struct Builder {
    profile: Profile,
    audiences: Vec<String>,
    scope: Vec<String>,
    leeway: Duration,
    broker: Broker,
    unknown_is_good: bool,
    clock: Arc<dyn Clock>,
}

enum Broker {
    Unsaid,
    At(Box<dayfly_client::Builder>),
    /// None is asked: these are the keys.
    Without(Vec<u8>),
}

/// A verifier was set up wrongly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Config(String);

impl Builder {
    pub(crate) fn new(profile: Profile) -> Self {
        Self {
            profile,
            audiences: Vec::new(),
            scope: Vec::new(),
            leeway: Limits::default().leeway,
            broker: Broker::Unsaid,
            unknown_is_good: false,
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// An audience that is ours: a token must be for exactly one, and that be one of these. At least one is required.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audiences.push(audience.into());
        self
    }

    /// A scope that every token must have; by default none is required.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope.push(scope.into());
        self
    }

    /// How far the clocks may be off: 30 s, which is also the most, since the broker forgets a revocation when 30 s have
    /// passed after the last token it covers has expired.
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// The broker: where it is, such as `https://dayfly.dayfly-system:8443`; the file with the certificate authorities that
    /// its certificate may come from; and the file with this server's own projected token, of the audience
    /// `dayfly-verifier`, which is read again as the kubelet replaces it.
    pub fn broker(
        self,
        endpoint: impl Into<String>,
        ca_file: impl Into<PathBuf>,
        token_file: impl Into<PathBuf>,
    ) -> Self {
        self.broker_by(Client::builder(endpoint).ca_file(ca_file), Arc::new(TokenFile::new(token_file)))
    }

    /// The broker, by a client set up elsewhere: where several clusters have one issuer, with
    /// [`cluster`](dayfly_client::Builder::cluster).
    pub fn broker_by(mut self, client: dayfly_client::Builder, token: Arc<dyn TokenSource>) -> Self {
        self.broker = Broker::At(Box::new(client.token_source(token)));
        self
    }

    /// Accepts tokens also while it is not known what is revoked: before the first list of revocations is whole, and when the
    /// broker has been silent for 15 s. What was last known to be revoked is refused still. Whoever holds a stolen token, and
    /// can keep this server from reaching the broker, goes on using it until it expires.
    pub fn danger_accept_where_revocations_are_unknown(mut self) -> Self {
        self.unknown_is_good = true;
        self
    }

    /// Asks no broker: these are the keys (a JWK Set, or a SPIFFE bundle), for good, and nothing is ever revoked. For tests of
    /// a resource server.
    pub fn danger_without_broker(mut self, keys: impl Into<Vec<u8>>) -> Self {
        self.broker = Broker::Without(keys.into());
        self
    }

    /// Takes the time from elsewhere, for tests.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The verifier, which begins to listen to the broker in the background: call it in a tokio runtime.
    /// [`Verifier::ready`] says when it knows enough.
    ///
    /// # Errors
    /// What is missing or wrong.
    pub fn build(self) -> Result<Verifier, Config> {
        let expected = expected(self.profile, self.audiences, self.scope, self.leeway)?;
        let state = Arc::new(State::new(self.clock));
        let mut inner = Inner {
            expected,
            state: Arc::clone(&state),
            unknown_is_good: self.unknown_is_good,
            tasks: Vec::new(),
        };
        match self.broker {
            Broker::Unsaid => return Err(Config("say which broker to listen to".to_owned())),
            Broker::Without(keys) => {
                let keys = match &inner.expected.profile {
                    Profile::AccessToken { .. } => KeySet::parse(&keys),
                    Profile::Svid { .. } => KeySet::parse_bundle(&keys),
                };
                state.put_keys(keys.map_err(|error| Config(error.to_string()))?);
                inner.unknown_is_good = true;
            }
            Broker::At(client) => {
                let runtime = Handle::try_current()
                    .map_err(|_| Config("a verifier is built in a tokio runtime".to_owned()))?;
                let client = client.build().map_err(|error| Config(error.to_string()))?;
                if self.unknown_is_good {
                    tracing::warn!("tokens are accepted also where it is not known what is revoked");
                }
                let rng = Arc::new(SystemRng::new());
                let keys = Keys::new(
                    client.clone(),
                    inner.expected.profile.clone(),
                    Arc::clone(&state),
                    rng.clone(),
                );
                let feed = Feed::new(client, state, rng);
                inner.tasks = vec![
                    runtime.spawn(keys.keep()).abort_handle(),
                    runtime.spawn(feed.follow()).abort_handle(),
                ];
            }
        }
        Ok(Verifier::of(inner))
    }
}

fn expected(
    profile: Profile,
    audiences: Vec<String>,
    scope: Vec<String>,
    leeway: Duration,
) -> Result<Expected, Config> {
    let most = Limits::default().leeway;
    if leeway > most {
        return Err(Config(format!("the leeway is at most {most:?}")));
    }
    if matches!(&profile, Profile::AccessToken { issuer } if issuer.is_empty()) {
        return Err(Config("say whose tokens are accepted: the issuer is empty".to_owned()));
    }
    let wrong = |error: dayfly_core::ids::NotAName| Config(error.to_string());
    let audiences: Vec<Audience> =
        audiences.into_iter().map(Audience::try_from).collect::<Result<_, _>>().map_err(wrong)?;
    if audiences.is_empty() {
        return Err(Config("say which audience is yours".to_owned()));
    }
    for scope in &scope {
        scope.parse::<Scope>().map_err(wrong)?;
    }
    Ok(Expected { profile, audiences, scope, leeway })
}
