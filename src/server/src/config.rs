//! `dayfly.toml`: read whole and checked before anything is bound or opened.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dayfly_core::ids::{Audience, ClusterName, TrustDomain};
use dayfly_core::limits::Limits;
use dayfly_core::note::{KeyName, NotAName};
use dayfly_core::ports::Clock;
use dayfly_core::spiffe::ServedDomain;
use dayfly_core::time::{NotATime, Timestamp};
use dayfly_kube::{Access, ClusterConfig};
use dayfly_policy::UnownedGrace;
use serde::Deserialize;

use crate::guard::{Rate, Room};
use crate::sessions::Sessions;

/// The configuration of one broker. Every field that is not here is an error.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Dayfly's issuer identifier, the `iss` of its tokens: an `https://` URL without query or fragment (RFC 8414).
    pub issuer: String,
    /// Where to listen for gRPC and HTTPS.
    pub listen: SocketAddr,
    /// The broker's own socket, by which root and its own user revoke when nothing else answers. None by default.
    pub socket: Option<PathBuf>,
    /// The server's certificate.
    pub tls: Tls,
    /// Where leases are recorded.
    pub store: Store,
    /// What seals the signing keys.
    pub keys: Keys,
    /// The audit log, which is in the store: its checkpoints, and what it keeps.
    #[serde(default)]
    pub log: LogConfig,
    /// The audiences of the three kinds of callers.
    #[serde(default)]
    pub audiences: Audiences,
    /// The clusters it serves; at least one.
    #[serde(rename = "cluster")]
    pub clusters: Vec<Cluster>,
    /// The cluster whose operators' rights hold over all clusters. Without it they hold for their own.
    pub home_cluster: Option<ClusterName>,
    /// What policy itself does not say.
    #[serde(default)]
    pub policy: PolicyConfig,
    /// Where the home cluster's API server reaches `sessions.dayfly.dev`, which gives operators tokens. Nowhere by default.
    pub sessions: Option<Sessions>,
    /// The SPIFFE trust domains that it issues SVIDs of; none by default.
    #[serde(rename = "trust_domain", default)]
    pub trust_domains: Vec<TrustDomainConfig>,
    /// The Token Status Lists of targets that have such.
    #[serde(default)]
    pub status_lists: StatusListConfig,
    /// Limits, where the defaults do not fit.
    #[serde(default)]
    pub limits: LimitsConfig,
}

/// How long Token Status Lists may be cached and relied on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StatusListConfig {
    /// For how long a list may be cached, its `ttl`: 60.
    pub ttl_secs: u64,
    /// For how long it may be relied on, until its `exp`: 300.
    pub life_secs: u64,
}

impl Default for StatusListConfig {
    fn default() -> Self {
        Self { ttl_secs: 60, life_secs: 300 }
    }
}

/// What policy itself does not say.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// Until when workloads in namespaces without an Owner are decided with the reserved owner `unowned`. By default they
    /// are denied.
    pub unowned_until: Option<Until>,
}

/// A moment: an RFC 3339 date-time, as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Until(Timestamp);

impl TryFrom<String> for Until {
    type Error = NotATime;

    fn try_from(text: String) -> Result<Self, NotATime> {
        dayfly_policy::rfc_3339(&text).map(Self).ok_or(NotATime)
    }
}

/// The server's certificate and key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM: the certificate chain, leaf first.
    pub cert_file: PathBuf,
    /// PEM: its private key.
    pub key_file: PathBuf,
}

/// Where leases are recorded.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// The embedded store's folder; made if it does not exist.
    pub dir: PathBuf,
    /// What keeps the store's position outside it.
    pub witness: Witness,
    /// How many days ended leases are kept: 30.
    #[serde(default = "thirty")]
    pub retention_days: u32,
    /// How many leases are kept at most: 10 million.
    #[serde(default = "ten_million")]
    pub max_leases: u64,
    /// Free bytes on the store's disk below which nothing is issued: 64 MiB. Revocations use a part of it.
    #[serde(default = "reserve")]
    pub reserve_bytes: u64,
}

/// What keeps the store's last position, so that an older copy of the store is noticed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// A file, on another file system than the store.
    pub file: PathBuf,
    /// Accepts a witness on the store's own file system, which a restored volume takes back with it. For development.
    #[serde(default)]
    pub danger_witness_beside_store: bool,
}

/// What seals the signing keys, and when they rotate.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// The key-encryption key: 32 bytes, readable by its owner (and group) alone, kept away from the store and its backups. Made if it does not exist. Its successors are beside it, `FILE.2` and so on.
    pub kek_file: PathBuf,
    /// How long a key that Dayfly makes signs: 30 days.
    #[serde(default = "thirty_days")]
    pub rotate_secs: u64,
    /// How long a next key is published before it signs: 10 minutes.
    #[serde(default = "ten_minutes")]
    pub publish_before_secs: u64,
}

impl Keys {
    /// When keys go on.
    pub(crate) fn schedule(&self) -> dayfly_keys::Schedule {
        dayfly_keys::Schedule {
            rotate: Duration::from_secs(self.rotate_secs),
            publish_before: Duration::from_secs(self.publish_before_secs),
        }
    }
}

const fn thirty_days() -> u64 {
    30 * 24 * 3600
}

const fn ten_minutes() -> u64 {
    600
}

/// The audit log's checkpoints: signed heads of it, for outsiders.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// What the log is called: the first line of its checkpoints and the name of their keys. By default the issuer's host and
    /// path, and `/log`.
    pub origin: Option<String>,
    /// How often a checkpoint is made, where the log has grown: 60.
    pub checkpoint_secs: u64,
    /// A file that each checkpoint is appended to. None by default.
    pub checkpoint_file: Option<PathBuf>,
    /// Whether each checkpoint is written to standard output, too: no.
    pub checkpoint_stdout: bool,
    /// How many days events keep their details: 400. Their leaves are kept for ever, and what is proved by them.
    pub detail_retention_days: u32,
    /// How often what is counted by the minute (denials, operators' reads) is written down, in seconds: 60.
    pub flush_secs: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            origin: None,
            checkpoint_secs: 60,
            checkpoint_file: None,
            checkpoint_stdout: false,
            detail_retention_days: 400,
            flush_secs: 60,
        }
    }
}

/// The audiences of the three kinds of callers: never interchangeable.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audiences {
    /// Workloads: `dayfly`.
    pub workload: Audience,
    /// Operators: `dayfly-operator`.
    pub operator: Audience,
    /// Verifiers: `dayfly-verifier`.
    pub verifier: Audience,
}

impl Default for Audiences {
    #[expect(clippy::expect_used, reason = "three constants, held by a test")]
    fn default() -> Self {
        let audience = |name: &str| name.parse().expect("a constant");
        Self {
            workload: audience("dayfly"),
            operator: audience("dayfly-operator"),
            verifier: audience("dayfly-verifier"),
        }
    }
}

#[expect(clippy::struct_field_names, reason = "`in_cluster` is what it is called everywhere")]
/// One cluster: how its API server is reached and whose tokens are its.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Its name: the first part of every identity. Never change it.
    pub name: ClusterName,
    /// The `iss` of its service-account tokens. Where several clusters have the same, callers name theirs.
    pub issuer: String,
    /// Its `--api-audiences`, by default its issuer: a token good for one of them is refused.
    #[serde(default)]
    pub api_audiences: Vec<String>,
    /// The folder with its Owners, Targets and Grants.
    pub policy: PathBuf,
    /// Until when workloads in its namespaces without an Owner are decided as `unowned`, instead of `policy.unowned_until`.
    pub unowned_until: Option<Until>,
    /// Whether tokens are checked against the cluster's keys before its API server reviews them: yes, unless an external
    /// signer hides its keys.
    #[serde(default = "yes")]
    pub local_check: bool,
    /// Where its keys are published (`--service-account-jwks-uri`), where that is not its API server: an `https` URL.
    pub jwks_url: Option<String>,
    /// With `jwks_url`: PEM of the CA that its certificate is by.
    pub jwks_ca_file: Option<PathBuf>,
    /// Reached as a pod inside it.
    #[serde(default)]
    pub in_cluster: bool,
    /// Reached by this kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context; its current one by default.
    pub context: Option<String>,
    /// Reached at this URL.
    pub server: Option<String>,
    /// With `server`: PEM of the CA that its certificate is by.
    pub ca_file: Option<PathBuf>,
    /// With `server`: the broker's own token, read again as it is rotated.
    pub token_file: Option<PathBuf>,
}

/// A SPIFFE trust domain that SVIDs are issued of. It has signing keys of its own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustDomainConfig {
    /// Its name, without `spiffe://`.
    pub name: TrustDomain,
    /// The clusters whose Targets may name it, and whose workloads get SVIDs of it; at least one.
    pub clusters: Vec<ClusterName>,
    /// Whether the path of its ids names the cluster. Where there are several clusters it always does, and by default
    /// only then. Never change it: ids are in other systems' rules.
    pub cluster_in_path: Option<bool>,
}

/// Limits that may be set, in seconds unless named otherwise.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// How long a good review is kept: 10, at most 60.
    pub review_cache_secs: Option<u64>,
    /// How long the API server's refusal of a token is kept: 2, at most 60.
    pub refused_cache_secs: Option<u64>,
    /// How long a review may take: 3.
    pub review_timeout_secs: Option<u64>,
    /// Reviews under way at once, for each cluster: 64.
    pub reviews_at_once: Option<usize>,
    /// How long an informer may hear nothing: 150.
    pub informer_silence_secs: Option<u64>,
    /// Live leases of one pod for one target, where policy does not say: 64.
    pub live_leases_per_pod: Option<u32>,
    /// And of one service account: 10 000.
    pub live_leases_per_workload: Option<u32>,
    /// How far the wall clock may jump: 300.
    pub clock_jump_secs: Option<u64>,
    /// How long a call without a deadline of its own may take: 10.
    pub call_timeout_secs: Option<u64>,
    /// How long a stopping server waits for calls under way: 30.
    pub drain_secs: Option<u64>,
    /// How often policy folders are read: 2.
    pub policy_reload_secs: Option<u64>,
    /// How often all live leases are looked at, whether they have kept their ground, beside those that something happened
    /// to: 300.
    pub reconcile_secs: Option<u64>,
    /// Workloads' and verifiers' calls under way at once; more are shed: 1024.
    pub calls_at_once: Option<usize>,
    /// Operators' calls under way at once, kept apart so that they are never shed for the others: 64.
    pub operator_calls_at_once: Option<usize>,
    /// Further ones that only `Revoke`, `RevokeKey` and `GetRevocation` may take: as many as those.
    pub revocations_at_once: Option<usize>,
    /// Calls under way of one workload or verifier, by its user name: 128.
    pub calls_of_one_caller: Option<usize>,
    /// And by one pod of it: 64.
    pub calls_of_one_pod: Option<usize>,
    /// Calls under way of one namespace's workloads and verifiers: 256.
    pub calls_of_one_namespace: Option<usize>,
    /// Calls under way of one cluster's workloads and verifiers: three quarters of `calls_at_once` where there are
    /// several clusters, else all.
    pub calls_of_one_cluster: Option<usize>,
    /// Tokens of workloads and verifiers under verification at once, of whomever: 128.
    pub unverified_at_once: Option<usize>,
    /// Tokens of operators under verification at once: 256.
    pub unverified_operators_at_once: Option<usize>,
    /// Calls of one workload (a pod) in a second, steadily: 10.
    pub calls_per_second_of_one_workload: Option<u32>,
    /// Calls of one workload at once, before that rate holds: 50.
    pub burst_of_one_workload: Option<u32>,
    /// Calls under way of one operator, by its user name: 8.
    pub calls_of_one_operator: Option<usize>,
    /// Operators' calls under way of one namespace's service accounts: a quarter of `operator_calls_at_once`.
    pub operator_calls_of_one_namespace: Option<usize>,
    /// And of one cluster's: three quarters of `operator_calls_at_once`.
    pub operator_calls_of_one_cluster: Option<usize>,
    /// Calls of one operator in a second, steadily: 20; and as many again that end something.
    pub calls_per_second_of_one_operator: Option<u32>,
    /// Calls of one operator at once, before that rate holds: 100.
    pub burst_of_one_operator: Option<u32>,
    /// How long a lease stays good after another renews it: 60.
    pub renewal_overlap_secs: Option<u64>,
    /// Streams of workloads open at once, beside calls: 4096.
    pub streams_at_once: Option<usize>,
    /// Streams open of one workload, which is one pod: 4.
    pub streams_of_one_workload: Option<usize>,
    /// Streams of verifiers open at once, beside calls: 4096.
    pub verifier_streams_at_once: Option<usize>,
    /// Streams open of one verifier, which is one pod: 4.
    pub streams_of_one_verifier: Option<usize>,
    /// For streams of operators, who watch or export events: 64.
    pub operator_streams_at_once: Option<usize>,
    /// For streams of one operator: 4.
    pub streams_of_one_operator: Option<usize>,
    /// Health watches and reflection of anyone, at once: 64.
    pub open_streams_at_once: Option<usize>,
    /// Other calls of anyone (keys), at once: 256.
    pub open_calls_at_once: Option<usize>,
    /// Open connections: 8192.
    pub connections: Option<usize>,
    /// Leases that the teardown of what was revoked goes through in a second, at most: 20 000.
    pub teardown_leases_per_second: Option<u32>,
}

impl Cluster {
    /// The API server's own audiences.
    pub(crate) fn api_audiences(&self) -> Vec<String> {
        if self.api_audiences.is_empty() { vec![self.issuer.clone()] } else { self.api_audiences.clone() }
    }

    /// What its adapter is made with.
    pub(crate) fn adapter(&self, ours: &Audiences, limits: &Limits, clock: &Arc<dyn Clock>) -> ClusterConfig {
        let access = match (&self.kubeconfig, &self.server) {
            (Some(path), _) => Access::Kubeconfig { path: path.clone(), context: self.context.clone() },
            (None, Some(server)) => Access::Url {
                server: server.clone(),
                ca_file: self.ca_file.clone(),
                token_file: self.token_file.clone(),
            },
            (None, None) => Access::InCluster,
        };
        ClusterConfig {
            name: self.name.clone(),
            issuer: self.issuer.clone(),
            audiences: dayfly_kube::Audiences {
                workload: ours.workload.clone(),
                operator: ours.operator.clone(),
                verifier: ours.verifier.clone(),
            },
            api_audiences: self.api_audiences(),
            access,
            jwks: self
                .jwks_url
                .clone()
                .map(|url| dayfly_kube::Jwks { url, ca_file: self.jwks_ca_file.clone() }),
            local_check: self.local_check,
            limits: limits.clone(),
            clock: Arc::clone(clock),
        }
    }
}

impl LimitsConfig {
    /// The first limit that is nothing or more than any broker can mean, and the most that it may be.
    fn out_of_bounds(&self) -> Option<(&'static str, u64)> {
        const DAY: u64 = 24 * 3600;
        let number = |number: Option<usize>| number.map(|number| u64::try_from(number).unwrap_or(u64::MAX));
        let rate = |number: Option<u32>| number.map(u64::from);
        let set = [
            ("review_cache_secs", self.review_cache_secs, DAY),
            ("refused_cache_secs", self.refused_cache_secs, 60),
            ("review_timeout_secs", self.review_timeout_secs, 60),
            ("reviews_at_once", number(self.reviews_at_once), 10_000),
            ("informer_silence_secs", self.informer_silence_secs, DAY),
            ("live_leases_per_pod", self.live_leases_per_pod.map(u64::from), 1_000_000),
            ("live_leases_per_workload", self.live_leases_per_workload.map(u64::from), 1_000_000),
            ("clock_jump_secs", self.clock_jump_secs, DAY),
            ("call_timeout_secs", self.call_timeout_secs, 600),
            ("drain_secs", self.drain_secs, 600),
            ("policy_reload_secs", self.policy_reload_secs, 300),
            ("reconcile_secs", self.reconcile_secs, DAY),
            ("calls_at_once", number(self.calls_at_once), 1_000_000),
            ("operator_calls_at_once", number(self.operator_calls_at_once), 1_000_000),
            ("revocations_at_once", number(self.revocations_at_once), 1_000_000),
            ("calls_of_one_caller", number(self.calls_of_one_caller), 1_000_000),
            ("calls_of_one_pod", number(self.calls_of_one_pod), 1_000_000),
            ("calls_of_one_namespace", number(self.calls_of_one_namespace), 1_000_000),
            ("calls_of_one_cluster", number(self.calls_of_one_cluster), 1_000_000),
            ("unverified_at_once", number(self.unverified_at_once), 1_000_000),
            ("unverified_operators_at_once", number(self.unverified_operators_at_once), 1_000_000),
            ("calls_per_second_of_one_workload", rate(self.calls_per_second_of_one_workload), 100_000),
            ("burst_of_one_workload", rate(self.burst_of_one_workload), 100_000),
            ("calls_of_one_operator", number(self.calls_of_one_operator), 1_000_000),
            ("operator_calls_of_one_namespace", number(self.operator_calls_of_one_namespace), 1_000_000),
            ("operator_calls_of_one_cluster", number(self.operator_calls_of_one_cluster), 1_000_000),
            ("calls_per_second_of_one_operator", rate(self.calls_per_second_of_one_operator), 100_000),
            ("burst_of_one_operator", rate(self.burst_of_one_operator), 100_000),
            ("renewal_overlap_secs", self.renewal_overlap_secs, 3600),
            ("streams_at_once", number(self.streams_at_once), 1_000_000),
            ("streams_of_one_workload", number(self.streams_of_one_workload), 1_000_000),
            ("verifier_streams_at_once", number(self.verifier_streams_at_once), 1_000_000),
            ("streams_of_one_verifier", number(self.streams_of_one_verifier), 1_000_000),
            ("operator_streams_at_once", number(self.operator_streams_at_once), 100_000),
            ("streams_of_one_operator", number(self.streams_of_one_operator), 100_000),
            ("open_streams_at_once", number(self.open_streams_at_once), 1_000_000),
            ("open_calls_at_once", number(self.open_calls_at_once), 1_000_000),
            ("connections", number(self.connections), 1_000_000),
            ("teardown_leases_per_second", rate(self.teardown_leases_per_second), 1_000_000),
        ];
        let bad = set.into_iter().find(|(_, set, most)| set.is_some_and(|set| set == 0 || set > *most));
        bad.map(|(name, _, most)| (name, most))
    }
}

fn three_quarters(of: usize) -> usize {
    (of * 3).div_ceil(4)
}

fn thirty() -> u32 {
    30
}

fn ten_million() -> u64 {
    10_000_000
}

fn reserve() -> u64 {
    64 * 1024 * 1024
}

fn yes() -> bool {
    true
}

/// The configuration cannot be used; says where and what to change.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not TOML of this shape.
    #[error("{}: {error}", path.display())]
    Shape {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        error: Box<toml::de::Error>,
    },
    /// A value cannot be used.
    #[error("{field}: {why}")]
    Value {
        /// Which field.
        field: String,
        /// What to change.
        why: String,
    },
}

impl Config {
    /// Reads and checks a configuration. Relative paths in it are relative to its own folder.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
        let mut config: Self = toml::from_str(&text)
            .map_err(|error| ConfigError::Shape { path: path.to_owned(), error: Box::new(error) })?;
        config.relative_to(path.parent().unwrap_or(Path::new(".")));
        config.check()?;
        Ok(config)
    }

    fn relative_to(&mut self, folder: &Path) {
        let own = [
            &mut self.tls.cert_file,
            &mut self.tls.key_file,
            &mut self.store.dir,
            &mut self.store.witness.file,
            &mut self.keys.kek_file,
        ];
        let of_clusters = self.clusters.iter_mut().flat_map(|cluster| {
            let optional = [
                &mut cluster.kubeconfig,
                &mut cluster.ca_file,
                &mut cluster.token_file,
                &mut cluster.jwks_ca_file,
            ];
            optional.into_iter().flatten().chain(std::iter::once(&mut cluster.policy))
        });
        let of_sessions = self.sessions.iter_mut().flat_map(|it| [&mut it.cert_file, &mut it.key_file]);
        for path in own
            .into_iter()
            .chain(self.socket.as_mut())
            .chain(self.log.checkpoint_file.as_mut())
            .chain(of_clusters)
            .chain(of_sessions)
        {
            *path = folder.join(&*path);
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong =
            |field: &str, why: &str| Err(ConfigError::Value { field: field.to_owned(), why: why.to_owned() });
        if !self.issuer.starts_with("https://")
            || self.issuer.contains(['?', '#', ' '])
            || self.issuer.len() > 255
        {
            return wrong("issuer", "give an https:// URL without query and fragment, of at most 255 bytes");
        }
        let Audiences { workload, operator, verifier } = &self.audiences;
        if workload == operator || operator == verifier || verifier == workload {
            return wrong("audiences", "workloads, operators and verifiers need three different audiences");
        }
        let Keys { rotate_secs, publish_before_secs, .. } = &self.keys;
        if !(3600..=366 * 24 * 3600).contains(rotate_secs) {
            return wrong("keys.rotate_secs", "from 3600 (an hour) to 31622400 (a year)");
        }
        if *publish_before_secs == 0 || *publish_before_secs > rotate_secs / 2 {
            return wrong("keys.publish_before_secs", "from 1 to half of keys.rotate_secs");
        }
        let StatusListConfig { ttl_secs, life_secs } = &self.status_lists;
        if *ttl_secs == 0 || *life_secs > 24 * 3600 || *ttl_secs > life_secs / 2 {
            return wrong(
                "status_lists",
                "ttl_secs from 1 to half of life_secs, and that at most 86400 (a day)",
            );
        }
        if self.clusters.is_empty() {
            return wrong("cluster", "name at least one [[cluster]]");
        }
        for (n, cluster) in self.clusters.iter().enumerate() {
            let ways = usize::from(cluster.in_cluster)
                + usize::from(cluster.kubeconfig.is_some())
                + usize::from(cluster.server.is_some());
            if ways != 1 {
                return wrong(
                    &format!("cluster {}", cluster.name),
                    "give exactly one of in_cluster = true, kubeconfig and server",
                );
            }
            if cluster.server.is_none() && (cluster.ca_file.is_some() || cluster.token_file.is_some()) {
                return wrong(&format!("cluster {}", cluster.name), "ca_file and token_file go with server");
            }
            if cluster.jwks_url.is_none() && cluster.jwks_ca_file.is_some() {
                return wrong(&format!("cluster {}", cluster.name), "jwks_ca_file goes with jwks_url");
            }
            if cluster.jwks_url.is_some() && !cluster.local_check {
                return wrong(
                    &format!("cluster {}", cluster.name),
                    "jwks_url is of no use without local_check",
                );
            }
            if cluster.issuer.is_empty() {
                return wrong(&format!("cluster {}", cluster.name), "issuer is empty");
            }
            if cluster.issuer == self.issuer {
                return wrong(
                    &format!("cluster {}", cluster.name),
                    "has Dayfly's own issuer: their tokens could not be told apart",
                );
            }
            let mut earlier = self.clusters.iter().take(n);
            if earlier.clone().any(|other| other.name == cluster.name) {
                return wrong(&format!("cluster {}", cluster.name), "there is another one of this name");
            }
            let hides = |other: &Cluster| !other.local_check || !cluster.local_check;
            if let Some(other) = earlier.find(|other| other.issuer == cluster.issuer && hides(other)) {
                return wrong(
                    &format!("cluster {}", cluster.name),
                    &format!(
                        "has the issuer of cluster {}, and local_check is off for one of them: only their keys tell \
                         their tokens apart, so both must be checked",
                        other.name
                    ),
                );
            }
        }
        if let Some(home) = &self.home_cluster
            && !self.clusters.iter().any(|cluster| cluster.name == *home)
        {
            return wrong("home_cluster", "names no [[cluster]]");
        }
        if let Some(sessions) = &self.sessions {
            if self.home_cluster.is_none() && self.clusters.len() > 1 {
                return wrong("sessions", "are of operators of the home cluster: name it (home_cluster)");
            }
            if sessions.listen == self.listen {
                return wrong("sessions.listen", "is another port than `listen`");
            }
        }
        let domains = self.trust_domains()?;
        for (n, domain) in self.trust_domains.iter().enumerate() {
            let field = format!("trust_domain {}", domain.name);
            if domains.iter().take(n).any(|earlier| *earlier.name() == domain.name) {
                return wrong(&field, "is there twice");
            }
            let known = |name: &ClusterName| self.clusters.iter().any(|cluster| cluster.name == *name);
            if domain.clusters.is_empty() || !domain.clusters.iter().all(known) {
                return wrong(&field, "clusters names at least one [[cluster]], and nothing else");
            }
        }
        if let Some((name, most)) = self.limits.out_of_bounds() {
            return wrong(&format!("limits.{name}"), &format!("from 1 to {most}"));
        }
        self.origin()?;
        if !(1..=24 * 3600).contains(&self.log.checkpoint_secs) {
            return wrong("log.checkpoint_secs", "from 1 to 86400");
        }
        if self.store.max_leases == 0 || self.store.retention_days == 0 {
            return wrong("store", "max_leases and retention_days are at least 1");
        }
        if !(1..=36_500).contains(&self.log.detail_retention_days) {
            return wrong("log.detail_retention_days", "from 1 to 36500");
        }
        if !(1..=60).contains(&self.log.flush_secs) {
            return wrong("log.flush_secs", "from 1 to 60");
        }
        if self.limits.review_cache_secs.is_some_and(|secs| secs > 60) {
            return wrong("limits.review_cache_secs", "at most 60: a review is kept for seconds only");
        }
        Ok(())
    }

    /// What the audit log is called.
    pub(crate) fn origin(&self) -> Result<KeyName, ConfigError> {
        let of_issuer = || {
            let issuer = self.issuer.trim_start_matches("https://").trim_end_matches('/');
            format!("{issuer}/log")
        };
        let origin = self.log.origin.clone().unwrap_or_else(of_issuer);
        origin.parse().map_err(|error: NotAName| ConfigError::Value {
            field: "log.origin".to_owned(),
            why: error.to_string(),
        })
    }

    /// Each cluster's grace for namespaces without an Owner, where it has one.
    pub(crate) fn graces(&self) -> impl Iterator<Item = (&ClusterName, UnownedGrace)> {
        self.clusters.iter().filter_map(|cluster| {
            let Until(until) = cluster.unowned_until.or(self.policy.unowned_until)?;
            Some((&cluster.name, UnownedGrace { until }))
        })
    }

    /// The trust domains, with the form of their ids.
    pub(crate) fn trust_domains(&self) -> Result<Vec<ServedDomain>, ConfigError> {
        let served = |domain: &TrustDomainConfig| {
            // A cluster that is named twice is one.
            let clusters: BTreeSet<_> = domain.clusters.iter().cloned().collect();
            ServedDomain::new(domain.name.clone(), clusters.into_iter().collect(), domain.cluster_in_path)
                .map_err(|error| ConfigError::Value {
                    field: format!("trust_domain {}", domain.name),
                    why: error.to_string(),
                })
        };
        self.trust_domains.iter().map(served).collect()
    }

    /// The trust domains that Targets of this cluster may name.
    pub(crate) fn trust_domains_of(&self, cluster: &ClusterName) -> BTreeSet<TrustDomain> {
        let of_cluster = self.trust_domains.iter().filter(|domain| domain.clusters.contains(cluster));
        of_cluster.map(|domain| domain.name.clone()).collect()
    }

    /// The places for calls under way.
    pub(crate) fn places(&self) -> crate::guard::Limits {
        let set = &self.limits;
        let callers = set.calls_at_once.unwrap_or(1024);
        let of_one_cluster = if self.clusters.len() > 1 { three_quarters(callers) } else { callers };
        let (operators, ending) = self.rooms_of_operators();
        crate::guard::Limits {
            callers: Room {
                places: callers,
                of_one_cluster: set.calls_of_one_cluster.unwrap_or(of_one_cluster),
                of_one_namespace: set.calls_of_one_namespace.unwrap_or(256),
                of_one_user: set.calls_of_one_caller.unwrap_or(128),
                of_one_pod: set.calls_of_one_pod.unwrap_or(64),
            },
            operators,
            ending,
            unverified: set.unverified_at_once.unwrap_or(128),
            unverified_operators: set.unverified_operators_at_once.unwrap_or(256),
            rate: Rate {
                per_second: set.calls_per_second_of_one_workload.unwrap_or(10),
                burst: set.burst_of_one_workload.unwrap_or(50),
            },
            operator_rate: Rate {
                per_second: set.calls_per_second_of_one_operator.unwrap_or(20),
                burst: set.burst_of_one_operator.unwrap_or(100),
            },
            open: set.open_calls_at_once.unwrap_or(256),
            open_streams: set.open_streams_at_once.unwrap_or(64),
            streams: set.streams_at_once.unwrap_or(4096),
            streams_of_one_workload: set.streams_of_one_workload.unwrap_or(4),
            verifier_streams: set.verifier_streams_at_once.unwrap_or(4096),
            streams_of_one_verifier: set.streams_of_one_verifier.unwrap_or(4),
            operator_streams: set.operator_streams_at_once.unwrap_or(64),
            streams_of_one_operator: set.streams_of_one_operator.unwrap_or(4),
        }
    }

    /// For all that operators call, and what there is beside it for what ends something: little for each, so that it
    /// takes many to fill it.
    fn rooms_of_operators(&self) -> (Room, Room) {
        let set = &self.limits;
        let all = set.operator_calls_at_once.unwrap_or(64);
        let of_one_user = set.calls_of_one_operator.unwrap_or(8);
        let ending = set.revocations_at_once.unwrap_or(all);
        let operators = Room {
            places: all,
            of_one_cluster: set.operator_calls_of_one_cluster.unwrap_or(three_quarters(all)),
            of_one_namespace: set.operator_calls_of_one_namespace.unwrap_or(all.div_ceil(4)),
            of_one_user,
            of_one_pod: of_one_user,
        };
        let of_each = ending.div_ceil(32);
        let ending = Room {
            places: ending,
            of_one_cluster: three_quarters(ending),
            of_one_namespace: of_each,
            of_one_user: of_each,
            of_one_pod: of_each,
        };
        (operators, ending)
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        let default = Limits::default();
        let set = &self.limits;
        let secs = |set: Option<u64>, default: Duration| set.map_or(default, Duration::from_secs);
        Limits {
            review_cache: secs(set.review_cache_secs, default.review_cache),
            refused_cache: secs(set.refused_cache_secs, default.refused_cache),
            review_timeout: secs(set.review_timeout_secs, default.review_timeout),
            reviews_at_once: set.reviews_at_once.unwrap_or(default.reviews_at_once).max(1),
            informer_silence: secs(set.informer_silence_secs, default.informer_silence),
            live_leases_per_pod: set.live_leases_per_pod.unwrap_or(default.live_leases_per_pod),
            live_leases_per_workload: set
                .live_leases_per_workload
                .unwrap_or(default.live_leases_per_workload),
            clock_jump: secs(set.clock_jump_secs, default.clock_jump),
            renewal_overlap: secs(set.renewal_overlap_secs, default.renewal_overlap),
            call_timeout: secs(set.call_timeout_secs, default.call_timeout),
            drain: secs(set.drain_secs, default.drain),
            ..default
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        issuer = "https://dayfly.example"
        listen = "127.0.0.1:8443"
        [tls]
        cert_file = "tls.crt"
        key_file = "/abs/tls.key"
        [store]
        dir = "store"
        [store.witness]
        file = "witness.json"
        [keys]
        kek_file = "kek"
        [[cluster]]
        name = "east"
        issuer = "https://kubernetes.default.svc"
        policy = "policy"
        in_cluster = true
    "#;

    /// Another cluster of the same issuer.
    const SECOND: &str = r#"
        [[cluster]]
        name = "west"
        issuer = "https://kubernetes.default.svc"
        policy = "policy"
        kubeconfig = "west""#;

    const SESSIONS: &str =
        "[sessions]\nlisten = '127.0.0.1:8444'\ncert_file = 'sessions.crt'\nkey_file = 'sessions.key'";

    fn load(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dayfly.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path)
    }

    #[test]
    fn a_good_one_is_read_with_its_defaults() {
        let config = load(GOOD).unwrap();
        assert_eq!(config.audiences.operator.as_str(), "dayfly-operator");
        assert!(config.store.dir.is_absolute() && config.store.dir.ends_with("store"));
        assert_eq!(config.tls.key_file, Path::new("/abs/tls.key"));
        assert_eq!(config.limits(), Limits::default());
        let second = load(&format!("{GOOD}\n{SECOND}")).unwrap();
        assert_eq!(second.clusters[0].issuer, second.clusters[1].issuer, "many have the default issuer");
    }

    /// `docs/reference/dayfly.toml` loads, names every setting, and states the defaults.
    #[test]
    fn the_reference_is_whole_and_right() {
        let reference = include_str!("../../../docs/reference/dayfly.toml");
        let config = load(reference).unwrap();
        assert_eq!(config.limits(), Limits::default());
        let (mut said, by_default) = (config.places(), load(GOOD).unwrap().places());
        assert_eq!(said.callers.of_one_cluster, three_quarters(by_default.callers.places), "of several");
        said.callers.of_one_cluster = by_default.callers.of_one_cluster;
        assert_eq!(format!("{said:?}"), format!("{by_default:?}"));
        let Room { of_one_cluster, of_one_namespace, of_one_user, .. } = said.ending;
        assert_eq!((of_one_cluster, of_one_namespace, of_one_user), (48, 2, 2), "as the reference says");
        assert_eq!((config.store.retention_days, config.store.max_leases), (thirty(), ten_million()));
        assert_eq!(config.store.reserve_bytes, reserve());
        assert_eq!((config.log.detail_retention_days, config.log.flush_secs), (400, 60));
        assert_eq!(config.keys.schedule(), load(GOOD).unwrap().keys.schedule());
        assert_eq!(config.log.checkpoint_secs, LogConfig::default().checkpoint_secs);
        assert_eq!(config.origin().unwrap(), load(GOOD).unwrap().origin().unwrap());
        assert_eq!(config.origin().unwrap().as_str(), "dayfly.example/log");
        let source = include_str!("config.rs").lines().take_while(|line| !line.contains("mod tests"));
        let fields =
            source.filter_map(|line| line.strip_prefix("    pub ")?.split_once(": ").map(|(name, _)| name));
        for setting in
            fields.filter(|name| !name.contains("fn ") && *name != "clusters" && *name != "trust_domains")
        {
            let value = format!("{setting} = ");
            let said = reference.lines().any(|line| line.trim_start_matches("# ").starts_with(&value));
            let table = reference.contains(&format!("{setting}]\n"));
            assert!(said || table, "{setting} is not in docs/reference/dayfly.toml");
        }
    }

    #[test]
    fn a_clusters_own_grace_goes_before_the_one_for_all() {
        let second = GOOD.split_once("[[cluster]]").unwrap().1;
        let second = second.replace("east", "west").replace("default.svc", "west.svc");
        let text = format!(
            "{GOOD}\nunowned_until = \"2027-01-31T00:00:00+01:00\"\n[[cluster]]{second}\n[policy]\nunowned_until = \
             \"2027-03-01T00:00:00Z\""
        );
        let graces: Vec<_> =
            load(&text).unwrap().graces().map(|(name, grace)| format!("{name} {}", grace.until)).collect();
        assert_eq!(graces, ["east 2027-01-30T23:00:00.000Z", "west 2027-03-01T00:00:00.000Z"]);
        assert_eq!(load(GOOD).unwrap().graces().count(), 0);
    }

    #[test]
    fn a_trust_domain_of_several_clusters_has_them_in_its_paths() {
        let west =
            "[[cluster]]\nname = \"west\"\nissuer = \"https://west\"\npolicy = \"west\"\nin_cluster = true\n";
        let domain = |rest: &str| format!("{GOOD}{west}[[trust_domain]]\nname = \"prod.example\"\n{rest}");
        let both = r#"clusters = ["east", "west"]"#;
        let config = load(&domain(both)).unwrap();
        let served = config.trust_domains().unwrap();
        assert!(served[0].form(&"west".parse().unwrap()).unwrap().cluster_in_path);
        assert_eq!(config.trust_domains_of(&"west".parse().unwrap()).len(), 1);
        let twice = format!("{both}\n[[trust_domain]]\nname = \"prod.example\"\n{both}");
        for (bad, why) in [
            (format!("{both}\ncluster_in_path = false"), "the path must name the cluster"),
            (r#"clusters = ["north"]"#.to_owned(), "at least one [[cluster]]"),
            ("clusters = []".to_owned(), "at least one [[cluster]]"),
            (twice, "is there twice"),
        ] {
            let error = load(&domain(&bad)).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_bad_one_says_what_to_change() {
        let cases = [
            (GOOD.replace("listen", "lisen"), "unknown field `lisen`"),
            (GOOD.replace("https://dayfly.example", "http://dayfly.example"), "issuer: give an https:// URL"),
            (GOOD.replace("in_cluster = true", ""), "exactly one of in_cluster"),
            (
                GOOD.replace("in_cluster = true", "in_cluster = true\nkubeconfig = \"k\""),
                "exactly one of in_cluster",
            ),
            (GOOD.replace("name = \"east\"", "name = \"East\""), "is not a cluster name"),
            (format!("{GOOD}\n{SECOND}").replace("west", "east"), "there is another one of this name"),
            (format!("{GOOD}\n{SECOND}\nlocal_check = false"), "only their keys tell their tokens apart"),
            (format!("{GOOD}\nlocal_check = false\n{SECOND}"), "only their keys tell their tokens apart"),
            (format!("{GOOD}\n[audiences]\nworkload = \"dayfly-operator\""), "three different audiences"),
            (format!("{GOOD}\n[limits]\nreview_cache_secs = 3600"), "at most 60"),
            (format!("{GOOD}\n[policy]\nunowned_until = \"2027-01-31\""), "not a time such as"),
            (format!("{GOOD}\n[policy]\nunowned_until = \"2027-01-31 00:00:00Z\""), "not a time such as"),
            (format!("{GOOD}\n[policy]\nunowned_till = 1"), "unknown field `unowned_till`"),
            (format!("{GOOD}\n[limits]\ncalls_at_once = 0"), "limits.calls_at_once: from 1"),
            (format!("{GOOD}\n{SECOND}\n{SESSIONS}"), "name it (home_cluster)"),
            (format!("{GOOD}\n{SESSIONS}").replace("8444", "8443"), "is another port"),
            (GOOD.replace("[keys]", "[keys]\nrotate_secs = 60"), "keys.rotate_secs: from 3600"),
            (GOOD.replace("[keys]", "[keys]\npublish_before_secs = 0"), "from 1 to half of"),
            (
                GOOD.replace("[keys]", "[keys]\nrotate_secs = 3600\npublish_before_secs = 3600"),
                "from 1 to half of",
            ),
            (format!("{GOOD}\n[status_lists]\nttl_secs = 200"), "from 1 to half of life_secs"),
            (format!("{GOOD}\n[status_lists]\nlife_secs = 100000"), "at most 86400"),
            (format!("{GOOD}\n[log]\norigin = \"a log\""), "log.origin: a name of a key"),
            (format!("{GOOD}\n[log]\ncheckpoint_secs = 0"), "log.checkpoint_secs: from 1"),
            (format!("{GOOD}\n[limits]\nclock_jump_secs = 9223372036854775807"), "from 1 to 86400"),
        ];
        for (text, expected) in cases {
            let error = load(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected:?} in {error:?}");
        }
    }
}
