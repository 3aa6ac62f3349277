use std::sync::Arc;
use std::time::Duration;

use dayfly_broker::{CoveredNews, Error, Reason, Resume, RevocationNews, RevocationWatch};
use dayfly_core::change::{Change, Lift, Outcome, Receipt, Revocation};
use dayfly_core::ids::{Incarnation, Position, RuleId};
use dayfly_core::ports::LeaseStore as _;
use dayfly_core::rule::{Actor, After, Authority, Fields, Rule, Selector};
use dayfly_core::secret::Secret;
use tokio::time::timeout;

use crate::support::{POLICY, UNTIL, World, api, bearer, gate, operator, orders, refused, secret};

const HEARTBEAT: Duration = Duration::from_millis(200);

async fn watch(world: &World, token: &Secret, resume: Option<Resume>) -> Result<RevocationWatch, Error> {
    Ok(world.broker.watch_revocations(bearer(token), resume).await?.with_heartbeat(HEARTBEAT))
}

/// A watch whose first list was told, and that list.
pub(crate) async fn begun(world: &World, resume: Option<Resume>) -> (RevocationWatch, RevocationNews) {
    let mut watch = watch(world, &gate(), resume).await.unwrap_or_else(|error| panic!("{error}"));
    let first = watch.next().await.unwrap();
    assert!(!first.more);
    (watch, first)
}

fn fields(of: impl FnOnce(&mut Fields)) -> Selector {
    let mut fields = Fields::default();
    of(&mut fields);
    Selector::fields(fields).unwrap()
}

fn owner(name: &str) -> Selector {
    Selector::owner(name.parse().unwrap())
}

fn target(name: &str) -> Selector {
    fields(|fields| fields.target = name.parse().ok())
}

fn write(world: &World, selector: Selector, after: After) -> Arc<Rule> {
    let by = Actor { cluster: None, username: "test".to_owned(), uid: String::new() };
    let reason = "incident 12".to_owned();
    let authority = Authority::ClusterWide;
    let revocation =
        Revocation { selector, after, by, authority, reason, idempotency: None, owners: Vec::new() };
    match world.store.commit_now(Change::Revoke(Box::new(revocation))).unwrap() {
        Outcome::Committed(Receipt { rule: Some(rule), .. }) => rule,
        other => panic!("{other:?}"),
    }
}

fn revoke(world: &World, selector: Selector) -> Arc<Rule> {
    write(world, selector, After::Reissue)
}

/// Time passes, in which the policy was read.
fn later(world: &World, by: Duration) {
    world.clock.advance(by);
    world.policy(POLICY);
}

fn listed_by_ledger_too() -> String {
    let with_verifier = "spec: {verifiers: [{namespace: orders, serviceAccount: gate}], jwt: {audiences";
    POLICY.replace("spec: {jwt: {audiences", with_verifier)
}

fn lift(world: &World, rule: RuleId) {
    let by = Actor { cluster: None, username: "test".to_owned(), uid: String::new() };
    let lift = Lift { rule, by, reason: "it is over".to_owned() };
    assert!(matches!(world.store.commit_now(Change::Lift(Box::new(lift))), Ok(Outcome::Committed(_))));
}

pub(crate) fn ids(news: &RevocationNews) -> Vec<RuleId> {
    news.rules.iter().map(|rule| rule.id).collect()
}

/// The next news that is no heartbeat.
pub(crate) async fn next(watch: &mut RevocationWatch) -> RevocationNews {
    loop {
        let news = watch.next().await.unwrap_or_else(|error| panic!("{error}"));
        if !news.rules.is_empty() || !news.lifted.is_empty() || news.covered.is_some() {
            return news;
        }
    }
}

#[tokio::test]
async fn begins_with_what_is_in_force_and_tells_each_rule() {
    let world = World::new();
    let hold = write(&world, owner("checkout"), After::Hold);
    revoke(&world, owner("payments"));
    later(&world, UNTIL + Duration::from_secs(1));
    let one = revoke(&world, owner("payments"));
    let (mut watch, first) = begun(&world, None).await;
    assert!(first.snapshot);
    assert_eq!(ids(&first), [hold.id, one.id], "neither what is over, nor a hold let go");
    assert_eq!(first.position, world.store.mark().position);

    let two = revoke(&world, Selector::All);
    let news = next(&mut watch).await;
    assert_eq!((ids(&news), news.snapshot, news.more), (vec![two.id], false, false));
    world.issued().await;
    let quiet = watch.next().await.unwrap();
    assert_eq!((ids(&quiet), quiet.snapshot), (vec![], false));
    assert_eq!(quiet.position, world.store.mark().position, "a heartbeat says how far it is");
}

#[tokio::test]
async fn rules_that_come_together_are_told_together_and_leases_tell_nothing() {
    let world = World::new();
    let (mut watch, first) = begun(&world, None).await;
    assert!(first.snapshot && first.rules.is_empty(), "an empty list is told too");
    for _ in 0..5 {
        revoke(&world, owner("payments"));
    }
    assert_eq!(next(&mut watch).await.rules.len(), 5);
    world.issued().await;
    assert!(timeout(HEARTBEAT / 2, watch.next()).await.is_err(), "a lease is no news");
}

#[tokio::test]
async fn a_long_list_comes_in_parts_and_can_be_resumed_after_any() {
    let world = World::new();
    let rules: Vec<_> = (0..250).map(|_| revoke(&world, owner("payments")).id).collect();
    let mut watching = watch(&world, &gate(), None).await.ok().unwrap();
    let parts =
        [watching.next().await.unwrap(), watching.next().await.unwrap(), watching.next().await.unwrap()];
    assert_eq!(
        parts.each_ref().map(|part| (part.rules.len(), part.snapshot, part.more)),
        [(100, true, true), (100, true, true), (50, true, false)]
    );
    assert_eq!(parts.iter().flat_map(ids).collect::<Vec<_>>(), rules);
    let mut again = watch(&world, &gate(), Some(parts[0].resume)).await.ok().unwrap();
    let (second, third) = (again.next().await.unwrap(), again.next().await.unwrap());
    assert_eq!([ids(&second), ids(&third)].concat(), rules[100..]);
    assert!(!second.snapshot && second.more && !third.more);
}

#[tokio::test]
async fn is_told_of_its_own_targets_alone() {
    let world = World::new();
    let told = [
        revoke(&world, target("orders")),
        revoke(&world, fields(|f| (f.cluster, f.target) = ("east".parse().ok(), "orders".parse().ok()))),
        revoke(&world, fields(|f| f.cluster = "west".parse().ok())),
    ];
    revoke(&world, target("ledger"));
    revoke(&world, fields(|f| (f.cluster, f.target) = ("west".parse().ok(), "orders".parse().ok())));
    let (mut watch, first) = begun(&world, None).await;
    assert_eq!(ids(&first), told.map(|rule| rule.id));
    revoke(&world, target("ledger"));
    let quiet = watch.next().await.unwrap();
    assert_eq!((ids(&quiet), quiet.position), (vec![], world.store.mark().position));
}

#[tokio::test]
async fn goes_on_where_it_was() {
    let world = World::new();
    revoke(&world, owner("payments"));
    let (watch, first) = begun(&world, None).await;
    drop(watch);
    let missed = [revoke(&world, owner("payments")), revoke(&world, owner("checkout"))];
    let (_, news) = begun(&world, Some(first.resume)).await;
    assert_eq!((ids(&news), news.snapshot), (missed.map(|rule| rule.id).to_vec(), false));
    let (_, nothing) = begun(&world, Some(news.resume)).await;
    assert_eq!((ids(&nothing), nothing.position), (vec![], news.position), "told at once that it knows all");
}

#[tokio::test]
async fn what_cannot_be_resumed_is_out_of_range() {
    let world = World::new();
    revoke(&world, owner("payments"));
    let resume = begun(&world, None).await.1.resume;
    let out_of_range = async |resume| {
        let error = refused(watch(&world, &gate(), Some(resume)).await);
        assert_eq!(error.reason(), Reason::ResumeOutOfRange, "{error}");
    };
    out_of_range(Resume { incarnation: Incarnation(2), ..resume }).await;
    out_of_range(Resume { position: resume.position.next(), ..resume }).await;
    out_of_range(Resume { told_of: dayfly_core::digest::Digest::of(b"other"), ..resume }).await;
    later(&world, UNTIL * 2);
    begun(&world, Some(resume)).await;
    revoke(&world, owner("payments"));
    later(&world, UNTIL * 2);
    out_of_range(resume).await;
    out_of_range(Resume { position: Position::ZERO, ..resume }).await;
    // What is told to another set of targets cannot go on from there.
    let (_, now) = begun(&world, None).await;
    world.policy(&listed_by_ledger_too());
    out_of_range(now.resume).await;
}

#[tokio::test]
async fn a_clock_that_is_set_ahead_ends_no_rule() {
    let world = World::new();
    let rule = revoke(&world, owner("payments"));
    world.clock.jump(100_000);
    assert_eq!(ids(&begun(&world, None).await.1), [rule.id]);
}

#[tokio::test]
async fn takes_only_verifiers_that_a_target_lists() {
    let world = World::new();
    for token in [api(), operator("alice"), secret("")] {
        let error = refused(watch(&world, &token, None).await);
        assert!(matches!(error.reason(), Reason::TokenAudience | Reason::TokenMalformed), "{error}");
    }
    let others = [
        "east/dayfly-verifier/system:serviceaccount:elsewhere:gate/gate-0",
        "east/dayfly-verifier/system:serviceaccount:orders:api/api-0",
        "east/dayfly-verifier/alice",
    ];
    for token in others {
        let error = refused(watch(&world, &secret(token), None).await);
        assert_eq!(error.reason(), Reason::NotAVerifier, "{token}");
    }
}

#[tokio::test]
async fn ends_when_no_target_lists_it_any_more_and_when_another_does() {
    let world = World::new();
    let (mut watch, _) = begun(&world, None).await;
    world.policy(&POLICY.replace("displayName: Checkout", "displayName: The checkout"));
    watch.next().await.unwrap();
    world.policy(&POLICY.replace("serviceAccount: gate", "serviceAccount: other"));
    assert_eq!(refused(watch.next().await).reason(), Reason::NotAVerifier);

    world.policy(POLICY);
    let (mut watch, _) = begun(&world, None).await;
    world.policy(&listed_by_ledger_too());
    revoke(&world, target("ledger"));
    assert_eq!(
        refused(watch.next().await).reason(),
        Reason::ResumeOutOfRange,
        "of ledger it knows nothing yet"
    );
    assert_eq!(begun(&world, None).await.1.rules.len(), 1);
}

#[tokio::test]
async fn ends_with_the_authority_it_stands_on() {
    let world = World::new();
    let (mut watch, _) = begun(&world, None).await;
    world.east().down.store(true, std::sync::atomic::Ordering::SeqCst);
    world.clock.advance(Duration::from_secs(61));
    watch.next().await.unwrap();
    world.east().down.store(false, std::sync::atomic::Ordering::SeqCst);
    world.east().pod("gate-0", |_| None);
    assert_eq!(refused(watch.next().await).reason(), Reason::PodGone);

    world.east().pod("gate-0", Some);
    let (mut watch, _) = begun(&world, None).await;
    world.east().refuse_tokens();
    watch.next().await.unwrap();
    world.clock.advance(Duration::from_secs(61));
    let error = refused(watch.next().await);
    assert!(matches!(error, Error::Unauthenticated { .. }), "{error:?}");
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_ends_no_watch_and_begins_none() {
    let world = World::new();
    let (mut watching, _) = begun(&world, None).await;
    world.clock.advance(Duration::from_secs(601));
    watching.next().await.unwrap();
    assert_eq!(refused(watch(&world, &gate(), None).await).reason(), Reason::PolicyUnavailable);
}

#[tokio::test]
async fn what_no_claim_says_is_spelled_out() {
    let world = World::new();
    let lease = world.issued().await.lease;
    let credential_id = lease.workload.credential_id.clone();
    assert!(credential_id.is_some());
    let spelled = revoke(&world, fields(|fields| fields.credential_id = credential_id.clone()));
    world.issued().await;
    let (mut watch, first) = begun(&world, None).await;
    assert_eq!((ids(&first), &first.covered), (vec![spelled.id], &None));
    let progress = world.broker.spelled_out(&spelled).unwrap();
    assert_eq!((progress.leases, progress.complete), (0, false));

    let broker = Arc::clone(&world.broker);
    let spelling = tokio::spawn(async move { broker.tear_down().await });
    let covered = CoveredNews { rule: spelled.id, leases: vec![lease.id], complete: true };
    assert_eq!(next(&mut watch).await.covered, Some(covered.clone()), "not what came after");
    let progress = world.broker.spelled_out(&spelled).unwrap();
    assert_eq!((progress.leases, progress.complete), (1, true));
    assert_eq!(begun(&world, Some(first.resume)).await.1.covered, Some(covered), "again on each stream");

    let fields = |f: &mut Fields| (f.credential_id, f.target) = (credential_id, "ledger".parse().ok());
    let of_ledger = revoke(&world, self::fields(fields));
    let by_claims = revoke(&world, owner("payments"));
    assert_eq!(ids(&next(&mut watch).await), [by_claims.id]);
    while !world.broker.spelled_out(&of_ledger).unwrap().complete {
        tokio::task::yield_now().await;
    }
    assert_eq!(watch.next().await.unwrap().covered, None, "of another target's rule it hears nothing");
    assert_eq!(world.broker.spelled_out(&by_claims), None);
    spelling.abort();
}

#[tokio::test]
async fn of_other_targets_leases_none_are_told() {
    let world = World::of(&["east", "west"], None).unwrap();
    let west = secret("west/dayfly/system:serviceaccount:payments:api/api-0");
    let there = world.issue(&west, &orders()).await.unwrap_or_else(|error| panic!("{error}")).lease;
    let here = world.issued().await.lease;
    let broker = Arc::clone(&world.broker);
    let spelling = tokio::spawn(async move { broker.tear_down().await });
    let (mut watch, _) = begun(&world, None).await;
    for (lease, told) in [(&there, vec![]), (&here, vec![here.id])] {
        let credential_id = lease.workload.credential_id.clone();
        let cluster = Some(lease.workload.cluster.clone());
        let rule = revoke(&world, fields(|f| (f.credential_id, f.cluster) = (credential_id, cluster)));
        let mut news = next(&mut watch).await;
        assert_eq!(ids(&news), [rule.id]);
        if news.covered.is_none() {
            news = next(&mut watch).await;
        }
        assert_eq!(news.covered.unwrap(), CoveredNews { rule: rule.id, leases: told, complete: true });
    }
    spelling.abort();
}

#[tokio::test]
async fn hears_that_a_hold_was_lifted() {
    let world = World::new();
    let [one, two, over] =
        ["payments", "checkout", "payments"].map(|name| write(&world, owner(name), After::Hold));
    let theirs = write(&world, target("ledger"), After::Hold);
    let (mut watch, first) = begun(&world, None).await;
    lift(&world, theirs.id);
    lift(&world, one.id);
    let news = next(&mut watch).await;
    assert_eq!((ids(&news), &news.lifted), (vec![], &vec![one.id]), "nothing of another target's");
    let (_, news) = begun(&world, Some(first.resume)).await;
    assert_eq!(news.lifted, [one.id], "also who was away");
    assert_eq!(begun(&world, Some(news.resume)).await.1.lifted, []);
    let (_, snapshot) = begun(&world, None).await;
    assert_eq!((ids(&snapshot), snapshot.lifted), (vec![one.id, two.id, over.id], vec![one.id]));

    later(&world, UNTIL * 2);
    lift(&world, over.id);
    assert_eq!(next(&mut watch).await.lifted, [over.id], "of one that covers nothing any more, too");
    let (_, snapshot) = begun(&world, None).await;
    assert_eq!((ids(&snapshot), snapshot.lifted), (vec![two.id], vec![]));
}
