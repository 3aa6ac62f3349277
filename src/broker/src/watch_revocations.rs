//! WatchRevocations: a verifier hears of every revocation that it can apply to a token's claims.
//!
//! It is told rules, in their order and each once on a stream. What is shared by all streams is the store's rule set: a
//! stream is a place in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dayfly_core::digest::Digest;
use dayfly_core::ids::{ClusterName, Incarnation, LeaseId, Position, RuleId, TargetName};
use dayfly_core::limits::{HEARTBEAT, STREAM_REVIEW};
use dayfly_core::rule::{Rule, Selector};
use dayfly_core::rules::RuleSet;
use dayfly_core::secret::Secret;
use dayfly_core::time::Timestamp;
use dayfly_core::workload::{ServiceAccount, Workload};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::attest::{Purpose, check_live, workload_of};
use crate::authenticate::{Bearer, Caller};
use crate::watch::but_for_outages;
use crate::{Broker, Error, Reason};

/// Rules in one message.
const RULES_AT_ONCE: usize = 100;
/// How long a stream rests after it has told something: rules that come close together go in one message.
const REST: Duration = Duration::from_millis(10);

/// What a verifier is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationNews {
    /// The store's position that this is as of: every rule up to it that the verifier is told of has been told.
    pub position: Position,
    /// Where to resume after this.
    pub resume: Resume,
    /// Rules, oldest first.
    pub rules: Vec<Arc<Rule>>,
    /// Whether they are of the list of all that is in force.
    pub snapshot: bool,
    /// Whether there is more to tell at once.
    pub more: bool,
    /// Rules whose holds were lifted.
    pub lifted: Vec<RuleId>,
    /// Leases of a rule that is spelled out.
    pub covered: Option<CoveredNews>,
}

impl RevocationNews {
    fn is_nothing(&self) -> bool {
        self.rules.is_empty() && self.lifted.is_empty() && self.covered.is_none()
    }
}

/// Leases that a rule covers which no claim can be matched by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoveredNews {
    /// The rule, which was told before.
    pub rule: RuleId,
    /// Some of them: those of targets that list the verifier.
    pub leases: Vec<LeaseId>,
    /// Whether all have been told.
    pub complete: bool,
}

/// Where a watch was: in which life of which store, how far, and told of which targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// The store's life.
    pub incarnation: Incarnation,
    /// Every rule up to this has been told.
    pub position: Position,
    /// The store, and the targets that list the verifier.
    pub told_of: Digest,
}

/// A verifier's watch over revocations.
pub struct RevocationWatch {
    broker: Arc<Broker>,
    token: Secret,
    named: Option<ClusterName>,
    verifier: Workload,
    listed: Listed,
    told_of: Digest,
    position: Position,
    /// The last rule that was told or passed by; none before the first.
    last: Option<RuleId>,
    /// The first list is of all that is in force, and has not been told whole.
    snapshot: bool,
    /// There is more to tell at once; so there is to begin with.
    more: bool,
    /// How far each rule that is spelled out has been told: parts, and that it is complete.
    spelled: BTreeMap<RuleId, (usize, bool)>,
    bell: watch::Receiver<()>,
    unwritten: watch::Receiver<()>,
    rested: Instant,
    verified: Duration,
    heartbeat: Duration,
}

/// The targets that list a verifier, by the policies of these generations.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Listed {
    generations: Vec<Option<Digest>>,
    targets: BTreeMap<ClusterName, Vec<TargetName>>,
}

impl Listed {
    /// Whether what the selector is about concerns any of them.
    fn concerns(&self, selector: &Selector) -> bool {
        let Selector::Where(fields) = selector else { return true };
        let Some(target) = &fields.target else { return true };
        self.targets.iter().any(|(cluster, targets)| {
            fields.cluster.as_ref().is_none_or(|named| named == cluster) && targets.contains(target)
        })
    }

    /// Whether this target is one of them.
    fn has(&self, cluster: &ClusterName, target: &TargetName) -> bool {
        self.targets.get(cluster).is_some_and(|targets| targets.contains(target))
    }

    fn fingerprint(&self, instance: &str) -> Digest {
        let targets = self.targets.iter().flat_map(|(cluster, targets)| {
            targets.iter().flat_map(move |target| [cluster.as_str().as_bytes(), target.as_str().as_bytes()])
        });
        let parts: Vec<&[u8]> = std::iter::once(instance.as_bytes()).chain(targets).collect();
        Digest::of_parts(&parts)
    }
}

impl Broker {
    /// Begins a watch over all revocations that concern the caller: those that name no target, and those that name one
    /// which lists it. `resume` is that of the last news it applied; none begins with all that is in force.
    ///
    /// # Errors
    /// When its token is not good, no target lists it, or the watch cannot be resumed ([`Error::OutOfRange`]).
    pub async fn watch_revocations(
        self: &Arc<Self>,
        bearer: Bearer<'_>,
        resume: Option<Resume>,
    ) -> Result<RevocationWatch, Error> {
        let (cluster, identity) = self.authenticate(bearer, Caller::Verifier).await?;
        let refused = || {
            let error = not_a_verifier();
            self.note_refused(cluster, &identity, None, &error);
            error
        };
        let account = identity.service_account().ok_or_else(refused)?;
        self.check_policies()?;
        let listed = self.listed(&cluster.name, &account);
        if listed.targets.is_empty() {
            return Err(refused());
        }
        let told_of = listed.fingerprint(&self.store.mark().instance.to_string());
        let last = match resume {
            Some(resume) => self.last_told(&resume, told_of)?,
            None => None,
        };
        Ok(RevocationWatch {
            token: Secret::from(bearer.token.expose().to_vec()),
            named: bearer.cluster.cloned(),
            verifier: workload_of(cluster, &identity)?,
            listed,
            told_of,
            position: resume.map_or(Position::ZERO, |resume| resume.position),
            last,
            snapshot: resume.is_none(),
            more: true,
            spelled: BTreeMap::new(),
            bell: self.spelling.bell(),
            unwritten: self.unwritten.bell(),
            rested: Instant::now(),
            verified: self.clock.monotonic(),
            heartbeat: HEARTBEAT,
            broker: Arc::clone(self),
        })
    }

    /// That every policy can be decided by: of one that cannot, it is not known whether it lists the caller.
    fn check_policies(&self) -> Result<(), Error> {
        let now = self.clock.monotonic();
        self.clusters.keys().try_for_each(|cluster| Ok(self.policies.current(cluster, now).map(drop)?))
    }

    /// The targets that list this verifier, by each cluster's policy as it was read last: that one cannot be read for a
    /// while ends no watch.
    fn listed(&self, home: &ClusterName, account: &ServiceAccount) -> Listed {
        let mut listed = Listed { generations: self.generations(), ..Listed::default() };
        for cluster in self.clusters.keys() {
            let Some(policy) = self.policies.last(cluster) else { continue };
            let lists = policy
                .targets()
                .filter(|target| target.accepts_verifier(cluster, home, &account.namespace, &account.name));
            let targets: Vec<_> = lists.map(|target| target.name.clone()).collect();
            if !targets.is_empty() {
                listed.targets.insert(cluster.clone(), targets);
            }
        }
        listed
    }

    fn generations(&self) -> Vec<Option<Digest>> {
        let policies = self.clusters.keys().map(|cluster| self.policies.last(cluster));
        policies.map(|policy| policy.map(|policy| policy.generation())).collect()
    }

    /// The last rule that was told before this.
    fn last_told(&self, resume: &Resume, told_of: Digest) -> Result<Option<RuleId>, Error> {
        // The position before the rules, so that these are all up to it.
        let mark = self.store.mark();
        let (rules, now) = (self.store.rules(), self.not_ahead());
        if resume.incarnation != mark.incarnation || resume.position > mark.position.max(rules.position()) {
            return Err(out_of_range("`resume` is not of this incarnation of the store"));
        }
        if resume.told_of != told_of {
            return Err(out_of_range("other Targets list the caller than when `resume` was told"));
        }
        if !rules.is_whole_since(resume.position, now) {
            return Err(out_of_range("a rule since `resume` has been folded away"));
        }
        Ok(rules.last_up_to(resume.position).map(|rule| rule.id))
    }

    /// The time that decides what is over and need not be told: a clock that was set ahead ends nothing.
    pub(crate) fn not_ahead(&self) -> Timestamp {
        self.guard.earliest(self.clock.as_ref())
    }
}

impl RevocationWatch {
    /// With another time between heartbeats than [`HEARTBEAT`].
    #[must_use]
    pub fn with_heartbeat(mut self, every: Duration) -> Self {
        self.heartbeat = every;
        self
    }

    /// What there is to tell next: first what is in force or came since, then each rule at once, and a heartbeat where
    /// nothing comes. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The watch is over: the token or the pod has lost its authority, other targets list the caller, or the store closes.
    pub async fn next(&mut self) -> Result<RevocationNews, Error> {
        if self.more {
            self.check_listed()?;
            return Ok(self.news());
        }
        let heartbeat = Instant::now() + self.heartbeat;
        sleep_until(self.rested.min(heartbeat)).await;
        loop {
            let due = tokio::select! {
                ruled = self.broker.store.ruled(self.position) => ruled.map(|_| false)?,
                // Its sender is the broker, which is there.
                _ = self.bell.changed() => false,
                _ = self.unwritten.changed() => false,
                () = sleep_until(heartbeat) => true,
            };
            if due {
                self.check_authority().await?;
            }
            self.check_listed()?;
            // From here to the answer nothing waits: what was heard is told.
            let news = self.news();
            if due || !news.is_nothing() {
                return Ok(news);
            }
        }
    }

    /// What has not been told, as much as goes at once.
    fn news(&mut self) -> RevocationNews {
        // The position before the rules, so that these are all up to it.
        let mark = self.broker.store.mark();
        let (rules, now) = (self.broker.store.rules(), self.broker.not_ahead());
        let from = self.position;
        let concerns = |rule: &&Arc<Rule>| rule.in_force(now) && self.listed.concerns(&rule.selector);
        let mut untold = rules.after(self.last).filter(concerns);
        let told: Vec<_> = untold.by_ref().take(RULES_AT_ONCE).cloned().collect();
        let more_rules = untold.next().is_some();
        if let Some(last) = told.last().filter(|_| more_rules) {
            // Those that are not on disk come after all that are.
            let whole = mark.position.max(rules.position());
            let position = if last.is_durable() { last.position } else { whole };
            (self.position, self.last) = (position, Some(last.id));
        } else {
            self.position = mark.position.max(rules.position());
            self.last = self.last.max(rules.iter().next_back().map(|rule| rule.id));
        }
        let lifted = self.lifted(&rules, &told, from);
        let snapshot = self.snapshot;
        let (covered, more_covered) = if more_rules { (None, false) } else { self.covered() };
        self.more = more_rules || more_covered;
        self.snapshot = snapshot && self.more;
        self.rested = Instant::now() + REST;
        let resume = Resume { incarnation: mark.incarnation, position: self.position, told_of: self.told_of };
        RevocationNews {
            position: self.position,
            resume,
            rules: told,
            snapshot,
            more: self.more,
            lifted,
            covered,
        }
    }

    /// The holds among these rules that were lifted by now, and those told before that were lifted since.
    fn lifted(&self, rules: &RuleSet, told: &[Arc<Rule>], from: Position) -> Vec<RuleId> {
        let now = self.broker.not_ahead();
        // Whoever begins knows of no other holds.
        let known = |rule: &&Arc<Rule>| !self.snapshot || rule.in_force(now);
        let since = rules.lifted(from, self.position).filter(|rule| self.listed.concerns(&rule.selector));
        let of_told = told.iter().filter(|rule| rule.lifted.is_some());
        let lifted: BTreeSet<_> = since.filter(known).chain(of_told).map(|rule| rule.id).collect();
        lifted.into_iter().collect()
    }

    /// The next part of what is spelled out, and whether there is another.
    fn covered(&mut self) -> (Option<CoveredNews>, bool) {
        self.bell.mark_unchanged();
        let (mut next, listed) = (None, &self.listed);
        for spelled in self.broker.spelling.up_to(self.last) {
            let rule = &spelled.rule;
            if !listed.concerns(&rule.selector) {
                continue;
            }
            let (told, told_whole) = self.spelled.entry(rule.id).or_default();
            while *told < spelled.parts.len() || *told_whole != spelled.complete {
                if next.is_some() {
                    return (next, true);
                }
                let part = spelled.parts.get(*told).map(AsRef::as_ref).unwrap_or_default();
                *told = spelled.parts.len().min(*told + 1);
                let complete = spelled.complete && *told == spelled.parts.len();
                *told_whole = complete;
                let of_listed = part.iter().filter(|one| listed.has(&one.cluster, &one.target));
                let leases: Vec<_> = of_listed.map(|one| one.lease).collect();
                if complete || !leases.is_empty() {
                    next = Some(CoveredNews { rule: rule.id, leases, complete });
                }
            }
        }
        (next, false)
    }

    /// That the same targets list the verifier as when it began.
    fn check_listed(&mut self) -> Result<(), Error> {
        if self.broker.generations() == self.listed.generations {
            return Ok(());
        }
        let listed = self.broker.listed(&self.verifier.cluster, &self.verifier.service_account);
        if listed.targets.is_empty() {
            return Err(not_a_verifier());
        }
        if listed.targets != self.listed.targets {
            return Err(out_of_range("other Targets list the caller than when this stream began"));
        }
        self.listed = listed;
        Ok(())
    }

    /// That the pod is there, and, now and then, that the token is still good. For lack of news nothing is ended.
    async fn check_authority(&mut self) -> Result<(), Error> {
        let broker = Arc::clone(&self.broker);
        if let Some(cluster) = broker.clusters.get(&self.verifier.cluster) {
            let live = check_live(cluster, &self.verifier, Purpose::Renewal, broker.now()).await;
            but_for_outages(live.map(drop))?;
        }
        let now = broker.clock.monotonic();
        if now.saturating_sub(self.verified) >= STREAM_REVIEW {
            let bearer = Bearer { token: &self.token, cluster: self.named.as_ref(), verified: None };
            but_for_outages(broker.authenticate(bearer, Caller::Verifier).await.map(drop))?;
            self.verified = now;
        }
        Ok(())
    }
}

fn not_a_verifier() -> Error {
    let message = "no Target lists you among its verifiers: add your service account to spec.verifiers of those that \
                   you verify credentials for";
    Error::denied(Reason::NotAVerifier, message)
}

fn out_of_range(why: &str) -> Error {
    Error::OutOfRange { message: format!("{why}: call again without `resume`") }
}
