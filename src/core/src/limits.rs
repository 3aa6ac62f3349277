//! Every limit on what comes from outside, and every named time, with its default. Configuration may lower or raise
//! those that are fields of [`Limits`]; the constants hold everywhere.

use std::time::Duration;

/// A projected token, in bytes. Real ones are 900 to 2 000.
pub const TOKEN_BYTES: usize = 8 * 1024;
/// A gRPC message from a caller, in bytes.
pub const MESSAGE_BYTES: usize = 64 * 1024;
/// Scopes in one request, grant, or lease.
pub const SCOPES: usize = 64;
/// An idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES: usize = 64;
/// A JWK that a request binds its credential to, in bytes of JSON.
pub const CONFIRMATION_JWK_BYTES: usize = 8 * 1024;
/// A certificate that a request binds its credential to, in bytes of PEM or DER.
pub const CONFIRMATION_CERTIFICATE_BYTES: usize = 16 * 1024;
/// The reason of a revocation, in bytes.
pub const REASON_BYTES: usize = 512;
/// A user name, uid or group of an operator as recorded, in bytes.
pub const ACTOR_BYTES: usize = 256;
/// User name, uid, groups and extra of an operator's session, all together as JSON, in bytes: its token holds them, and
/// is a token of at most [`TOKEN_BYTES`].
pub const SESSION_USER_BYTES: usize = 4 * 1024;
/// The `Audit-ID` of a request to an API server as recorded, in bytes.
pub const AUDIT_ID_BYTES: usize = 128;
/// How long an operator's session lives.
pub const SESSION_TTL: Duration = Duration::from_secs(600);
/// Leases, rules or owners in one page.
pub const PAGE: usize = 1000;
/// A page where the request names no size.
pub const PAGE_DEFAULT: usize = 100;
/// Rules that are looked at for one page of revocations, which may be short then.
pub const RULES_LOOKED_AT: usize = 20_000;
/// Events that are looked at for one page of them, which may be short then.
pub const EVENTS_LOOKED_AT: usize = 20_000;
/// Details of events in one page or message, in bytes; the last one may go beyond it.
pub const EVENT_PAGE_BYTES: usize = 1024 * 1024;
/// One policy file, in bytes.
pub const POLICY_FILE_BYTES: u64 = 1024 * 1024;
/// Rules that are folded away and still kept in memory, the newest.
pub const FOLDED_RULES: usize = 100_000;
/// Policy files in a folder.
pub const POLICY_FILES: usize = 10_000;
/// The shortest life of a credential.
pub const TTL_MIN: Duration = Duration::from_secs(30);
/// The longest life of a credential, whatever policy says.
pub const TTL_MAX: Duration = Duration::from_secs(24 * 3600);
/// Live leases of one workload that a watch tells of.
pub const WATCHED_LEASES: usize = 1000;
/// How often a stream that has nothing to tell says so, with its position.
pub const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long a stream waits for a reader that takes nothing, before it is cut.
pub const SLOW_READER: Duration = Duration::from_secs(15);
/// How often a stream's token is verified again.
pub const STREAM_REVIEW: Duration = Duration::from_secs(60);
/// A value in the store, in bytes: sled puts larger ones into files that it never syncs.
pub const STORED_VALUE_BYTES: usize = 60 * 1024;
/// A lease's or rule's record in the store, in bytes: at most this much may one change bring.
pub const RECORD_BYTES: usize = 16 * 1024;

/// Limits and named times that configuration may set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How long a good review is kept: 10 s.
    pub review_cache: Duration,
    /// How long the API server's refusal of a token is kept: 2 s.
    pub refused_cache: Duration,
    /// How long a TokenReview or SubjectAccessReview may take: 3 s.
    pub review_timeout: Duration,
    /// TokenReviews and SubjectAccessReviews under way at once, for each cluster: 64.
    pub reviews_at_once: usize,
    /// How long an informer may hear nothing, bookmarks included: 150 s.
    pub informer_silence: Duration,
    /// How long the last readable policy is used when its source cannot be read: 10 min.
    pub policy_unreadable: Duration,
    /// How far a verifier's clock may be off: 30 s.
    pub leeway: Duration,
    /// How far the wall clock may jump against the monotonic clock before issuing stops: 300 s.
    pub clock_jump: Duration,
    /// How long a caller may repeat an idempotency key: 10 min.
    pub idempotency: Duration,
    /// How long a lease stays good after another renews it: 60 s.
    pub renewal_overlap: Duration,
    /// How many leases for one target a pod may have live at once where policy does not say: 64.
    pub live_leases_per_pod: u32,
    /// And a service account, all its pods together: 10 000.
    pub live_leases_per_workload: u32,
    /// How long a call without a deadline of its own may take: 10 s.
    pub call_timeout: Duration,
    /// How long a stopping server waits for calls under way: 30 s.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            review_cache: Duration::from_secs(10),
            refused_cache: Duration::from_secs(2),
            review_timeout: Duration::from_secs(3),
            reviews_at_once: 64,
            informer_silence: Duration::from_secs(150),
            policy_unreadable: Duration::from_secs(600),
            leeway: Duration::from_secs(30),
            clock_jump: Duration::from_secs(300),
            idempotency: Duration::from_secs(600),
            renewal_overlap: Duration::from_secs(60),
            live_leases_per_pod: 64,
            live_leases_per_workload: 10_000,
            call_timeout: Duration::from_secs(10),
            drain: Duration::from_secs(30),
        }
    }
}
