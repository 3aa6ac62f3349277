//! The other ports: an engine that signs nothing, and a cluster whose tokens say in the clear what they are.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dayfly_core::digest::Digest;
use dayfly_core::ids::{Audience, ClusterName, KeyId, Namespace, PodName, Position, ServiceAccountName, Uid};
use dayfly_core::keeper::{KeeperError, KeyKeeper, KeyState, RevokedKey};
use dayfly_core::ports::{
    Action, AffectedObjects, Authorizer, BoxFuture, ControllerChain, Directory, DirectoryError, Engine,
    InvalidToken, KeyFor, MintError, Minted, NamespaceFacts, Order, PodFacts, PodPhase, ReviewError,
    Reviewer, ServiceAccountFacts, SignError, SigningKey,
};
use dayfly_core::provenance::ObjectRef;
use dayfly_core::rule::{Actor, Fields, Rule, Selector};
use dayfly_core::secret::Secret;
use dayfly_core::session::{NoSession, Session, SessionToken, SessionTokens};
use dayfly_core::signing::{KeyPurpose, KeyStage};
use dayfly_core::time::Timestamp;
use dayfly_core::workload::Identity;

/// What happens while a credential is being minted: after the decision, before the commit.
type Meanwhile = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub(crate) struct FakeEngine {
    minted: AtomicU32,
    pub(crate) not_after: Mutex<Option<Timestamp>>,
    pub(crate) retired: AtomicBool,
    meanwhile: Mutex<Vec<Meanwhile>>,
}

impl FakeEngine {
    /// The next mint sees this happen; what was said before comes one mint later.
    pub(crate) fn meanwhile(&self, happens: impl FnOnce() + Send + 'static) {
        self.meanwhile.lock().unwrap().push(Box::new(happens));
    }

    pub(crate) fn mints(&self) -> u32 {
        self.minted.load(Ordering::SeqCst)
    }
}

impl Engine for FakeEngine {
    /// No RSA key is imported here.
    fn prepare(&self, wanted: &KeyFor) -> Result<SigningKey, MintError> {
        if wanted.algorithm.is_imported() {
            return Err(SignError::NotImported(wanted.target.clone(), wanted.algorithm).into());
        }
        Ok(SigningKey { id: "key-1".parse().unwrap(), not_after: *self.not_after.lock().unwrap() })
    }

    fn mint<'a>(&'a self, order: &'a Order<'a>) -> BoxFuture<'a, Result<Minted, MintError>> {
        Box::pin(async move {
            if self.retired.load(Ordering::SeqCst) {
                return Err(MintError::Sign(SignError::NoKey));
            }
            let count = self.minted.fetch_add(1, Ordering::SeqCst);
            let meanwhile = self.meanwhile.lock().unwrap().pop();
            if let Some(happens) = meanwhile {
                happens();
            }
            let text = format!("credential/{}/{count}", order.lease.id);
            Ok(Minted { digest: Digest::of(text.as_bytes()), credential: Secret::from(text) })
        })
    }
}

/// A user, a verb, a resource, and a name or all.
type Right = (String, &'static str, &'static str, Option<String>);

/// A cluster. Its tokens are `CLUSTER/AUDIENCE/USERNAME[/POD or /node:NODE]`; every pod and service account is there and has the uid
/// of its name, until it is said otherwise.
pub(crate) struct FakeCluster {
    name: ClusterName,
    pub(crate) ready: AtomicBool,
    pub(crate) down: AtomicBool,
    /// Whether its directory cannot say anything.
    pub(crate) silent: AtomicBool,
    refusing: AtomicBool,
    pods: Mutex<HashMap<String, Option<PodFacts>>>,
    accounts: Mutex<HashMap<String, Option<ServiceAccountFacts>>>,
    namespaces: Mutex<HashMap<String, Option<NamespaceFacts>>>,
    chain: Mutex<ControllerChain>,
    pub(crate) of_secret: AtomicBool,
    rights: Mutex<HashSet<Right>>,
}

pub(crate) fn uid_of(name: &str) -> Uid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Digest::of(name.as_bytes()).as_bytes()[..16]);
    Uid::from_bytes(bytes)
}

impl FakeCluster {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.parse().unwrap(),
            ready: AtomicBool::new(true),
            down: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            pods: Mutex::default(),
            accounts: Mutex::default(),
            namespaces: Mutex::default(),
            chain: Mutex::default(),
            of_secret: AtomicBool::new(false),
            rights: Mutex::default(),
        }
    }

    fn says(&self) -> Result<(), DirectoryError> {
        if self.silent.load(Ordering::SeqCst) {
            let why = "connection refused".to_owned();
            return Err(DirectoryError { why, retry_after: Duration::from_secs(1) });
        }
        Ok(())
    }

    /// A pod of the service account `api`, changed or, by `None`, gone.
    pub(crate) fn pod(&self, name: &str, change: impl FnOnce(PodFacts) -> Option<PodFacts>) {
        self.pods.lock().unwrap().insert(name.to_owned(), change(api_pod(name)));
    }

    /// From now on no token is good any more.
    pub(crate) fn refuse_tokens(&self) {
        self.refusing.store(true, Ordering::SeqCst);
    }

    pub(crate) fn account(&self, name: &str, facts: Option<ServiceAccountFacts>) {
        self.accounts.lock().unwrap().insert(name.to_owned(), facts);
    }

    pub(crate) fn namespace(&self, name: &str, facts: Option<NamespaceFacts>) {
        self.namespaces.lock().unwrap().insert(name.to_owned(), facts);
    }

    /// What every pod's controllers are that has one.
    pub(crate) fn chain(&self, chain: ControllerChain) {
        *self.chain.lock().unwrap() = chain;
    }

    /// Lets a user do this to owners of this name; without a name, to all.
    pub(crate) fn allow(&self, user: &str, verb: &'static str, owner: Option<&str>) {
        self.allow_on("owners", user, verb, owner);
    }

    /// Takes every right from a user.
    pub(crate) fn disallow(&self, user: &str) {
        self.rights.lock().unwrap().retain(|(of, ..)| of != user);
    }

    /// Lets a user do this to such things of this name; without a name, to all.
    pub(crate) fn allow_on(
        &self,
        resource: &'static str,
        user: &str,
        verb: &'static str,
        name: Option<&str>,
    ) {
        let right = (user.to_owned(), verb, resource, name.map(str::to_owned));
        self.rights.lock().unwrap().insert(right);
    }
}

fn api_pod(name: &str) -> PodFacts {
    PodFacts {
        uid: uid_of(name),
        service_account: name.split('-').next().unwrap().parse().unwrap(),
        node: Some("node-1".parse().unwrap()),
        phase: PodPhase::Running,
        deleting: None,
        labels: Arc::default(),
        controller: None,
        images: Arc::default(),
        images_known: true,
        applied_by: None,
    }
}

impl Reviewer for FakeCluster {
    fn review<'a>(
        &'a self,
        token: &'a Secret,
        audience: &'a Audience,
    ) -> BoxFuture<'a, Result<Arc<Identity>, ReviewError>> {
        let parts: Vec<_> = token.expose_text().unwrap().split('/').map(str::to_owned).collect();
        let reviewed = if self.down.load(Ordering::SeqCst) {
            Err(ReviewError::Unavailable {
                why: "connection refused".to_owned(),
                retry_after: Duration::from_secs(1),
            })
        } else if self.refusing.load(Ordering::SeqCst) {
            Err(ReviewError::Invalid {
                kind: InvalidToken::Refused,
                message: "the token was invalidated".to_owned(),
            })
        } else if parts[1] == audience.as_str() {
            let extra =
                |key: &str, value: String| (format!("authentication.kubernetes.io/{key}"), vec![value]);
            let bound = parts.get(3).map(|name| match name.strip_prefix("node:") {
                Some(node) => {
                    [extra("node-name", node.to_owned()), extra("node-uid", uid_of(node).to_string())]
                }
                None => [extra("pod-name", name.clone()), extra("pod-uid", uid_of(name).to_string())],
            });
            Ok(Arc::new(Identity {
                cluster: self.name.clone(),
                username: parts[2].clone(),
                uid: uid_of(parts[2].rsplit(':').next().unwrap()).to_string(),
                groups: Vec::new(),
                extra: bound
                    .into_iter()
                    .flatten()
                    .chain([extra("credential-id", format!("JTI={}", uid_of(token.expose_text().unwrap())))])
                    .collect::<BTreeMap<_, _>>(),
                of_secret: self.of_secret.load(Ordering::SeqCst),
            }))
        } else {
            let message = format!("the token is not for audience {audience}");
            Err(ReviewError::Invalid { kind: InvalidToken::WrongAudience, message })
        };
        Box::pin(async move { reviewed })
    }
}

impl Directory for FakeCluster {
    fn pod<'a>(
        &'a self,
        _: &'a Namespace,
        name: &'a PodName,
        _: Option<Uid>,
    ) -> BoxFuture<'a, Result<Option<PodFacts>, DirectoryError>> {
        let said = self.pods.lock().unwrap().get(name.as_str()).cloned();
        Box::pin(async move {
            self.says()?;
            Ok(said.unwrap_or_else(|| Some(api_pod(name.as_str()))))
        })
    }

    fn service_account<'a>(
        &'a self,
        _: &'a Namespace,
        name: &'a ServiceAccountName,
        _: Option<Uid>,
    ) -> BoxFuture<'a, Result<Option<ServiceAccountFacts>, DirectoryError>> {
        let said = self.accounts.lock().unwrap().get(name.as_str()).cloned();
        let there =
            ServiceAccountFacts { uid: uid_of(name.as_str()), deleting: false, labels: Arc::default() };
        Box::pin(async move {
            self.says()?;
            Ok(said.unwrap_or(Some(there)))
        })
    }

    fn namespace<'a>(
        &'a self,
        name: &'a Namespace,
    ) -> BoxFuture<'a, Result<Option<NamespaceFacts>, DirectoryError>> {
        let said = self.namespaces.lock().unwrap().get(name.as_str()).cloned();
        let there = NamespaceFacts { uid: uid_of(name.as_str()), labels: Arc::default(), deleting: false };
        Box::pin(async move {
            self.says()?;
            Ok(said.unwrap_or(Some(there)))
        })
    }

    /// Those that tests spoke of.
    fn namespaces(&self, limit: usize) -> Vec<(Namespace, NamespaceFacts)> {
        let said = self.namespaces.lock().unwrap();
        let there = said.iter().filter_map(|(name, facts)| Some((name.parse().unwrap(), facts.clone()?)));
        there.take(limit).collect()
    }

    fn controllers<'a>(&'a self, _: &'a Namespace, _: &'a ObjectRef) -> BoxFuture<'a, ControllerChain> {
        let chain = self.chain.lock().unwrap().clone();
        Box::pin(async move { chain })
    }

    fn ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }

    fn affected(&self) -> BoxFuture<'_, AffectedObjects> {
        Box::pin(std::future::pending())
    }
}

impl Authorizer for FakeCluster {
    fn allowed<'a>(
        &'a self,
        identity: &'a Identity,
        action: &'a Action,
    ) -> BoxFuture<'a, Result<bool, DirectoryError>> {
        assert_eq!(identity.cluster, self.name);
        let rights = self.rights.lock().unwrap();
        let user = &identity.username;
        let has = |name: Option<String>| rights.contains(&(user.clone(), action.verb, action.resource, name));
        let allowed = has(None) || has(action.name.clone());
        Box::pin(async move { Ok(allowed) })
    }
}

/// Keeps `key-1`, which is active, and lets it be rotated and revoked without end.
#[derive(Default)]
pub(crate) struct FakeKeeper {
    /// What was asked for, and by whom.
    pub(crate) asked: Mutex<Vec<String>>,
}

impl KeyKeeper for FakeKeeper {
    fn refresh(&self) -> Duration {
        Duration::from_secs(300)
    }

    fn keys(&self) -> Vec<KeyState> {
        let key = |id: &str, stage| KeyState {
            id: id.parse().unwrap(),
            purpose: "access-token".parse().unwrap(),
            stage,
            since: Timestamp::from_secs(1),
            created_at: Timestamp::from_secs(1),
            signs_from: None,
            signs_until: None,
            published_until: None,
            generation: 1,
        };
        vec![key("key-0", KeyStage::Retired), key("key-1", KeyStage::Active)]
    }

    fn rotate<'a>(
        &'a self,
        purpose: &'a KeyPurpose,
        now: bool,
        by: &'a Actor,
    ) -> BoxFuture<'a, Result<KeyState, KeeperError>> {
        self.asked.lock().unwrap().push(format!("rotate {purpose} {now} {by}"));
        Box::pin(async { Ok(self.keys().remove(1)) })
    }

    fn revoke<'a>(
        &'a self,
        key: &'a KeyId,
        by: &'a Actor,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<RevokedKey, KeeperError>> {
        self.asked.lock().unwrap().push(format!("revoke {key} {by} {reason}"));
        let known = self.keys().into_iter().any(|known| known.id == *key);
        let selector = Selector::fields(Fields { key: Some(key.clone()), ..Fields::default() }).unwrap();
        let rule = Arc::new(Rule::test(Position::new(1).number(), selector, 9));
        Box::pin(async move {
            let revoked = RevokedKey { rule, instead: None, was_active: true };
            if known { Ok(revoked) } else { Err(KeeperError::NoSuchKey(key.clone())) }
        })
    }
}

/// Its tokens are `dayfly.example/session/NUMBER`: which session that is it remembers.
#[derive(Default)]
pub(crate) struct FakeSessions {
    signed: Mutex<Vec<Session>>,
}

impl SessionTokens for FakeSessions {
    fn sign(&self, session: &Session) -> Result<SessionToken, SignError> {
        let mut signed = self.signed.lock().unwrap();
        signed.push(session.clone());
        let token = Secret::from(format!("dayfly.example/session/{}", signed.len() - 1));
        Ok(SessionToken { token, key: "session-key-1".parse().unwrap() })
    }

    fn read(&self, token: &Secret, now: Timestamp) -> Result<Session, NoSession> {
        let number = token.expose_text().unwrap().rsplit('/').next().unwrap().parse::<usize>().unwrap();
        let session = self.signed.lock().unwrap()[number].clone();
        if now >= session.expires_at {
            return Err(NoSession { kind: InvalidToken::Expired, message: "it ended".to_owned() });
        }
        Ok(session)
    }
}
