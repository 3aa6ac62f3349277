//! The life of a lease after it was issued: renewed, given back, asked for again.

use std::collections::BTreeMap;
use std::time::Duration;

use dayfly_api::v1;
use dayfly_e2e::broker::Options;
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::run::until;
use dayfly_e2e::world::{Pod, Team, World, asking_for, lease_of, leases_of, owned_by, reason, renewal_of};
use futures_util::future::join_all;
use tonic::{Code, Status};

on_both!(
    a_renewal_links_two_leases_and_the_earlier_one_ends_after_the_overlap,
    nobody_else_renews_or_gives_back_a_lease,
    a_renewal_is_decided_by_the_policy_of_now,
    what_was_revoked_is_not_renewed,
    a_terminating_pod_renews_and_gets_nothing_new,
    of_renewals_at_once_one_wins,
    a_lease_is_given_back_once,
    a_repeated_renewal_is_the_same_and_decided_afresh,
    an_answer_that_was_lost_is_asked_for_again,
    renewals_survive_a_crash,
);

/// A team, a pod of it, and a lease of that.
async fn served(world: &World) -> (Team, Pod<'_>, v1::IssueResponse) {
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let issued = pod.issue(&team.target).await.unwrap();
    (team, pod, issued)
}

fn id(lease: Option<&v1::Lease>) -> String {
    lease.unwrap().id.clone()
}

async fn refused(pod: &Pod<'_>, request: v1::RenewRequest) -> Status {
    pod.ask_to_renew(request).await.unwrap().map(|renewed| renewed.lease).unwrap_err()
}

/// With an overlap of so many seconds.
fn overlap(secs: u64) -> Options {
    Options { limits: BTreeMap::from([("renewal_overlap_secs", secs)]), ..Options::default() }
}

async fn a_renewal_links_two_leases_and_the_earlier_one_ends_after_the_overlap(kind: Kind) {
    let world = World::with_own_broker(kind, overlap(2)).await.unwrap();
    let (team, pod, issued) = served(&world).await;
    let first = issued.lease.unwrap();
    assert_eq!(first.ends_at, first.expires_at);
    let renewed = pod.renew(&first.id).await.unwrap();
    let (new, earlier) = (renewed.lease.unwrap(), renewed.earlier.unwrap());
    assert_eq!((&new.renews, &earlier.renewed_by), (&first.id, &new.id));
    assert_eq!((&new.target, &new.grant, &new.scope), (&first.target, &first.grant, &first.scope));
    assert!(new.id > first.id && renewed.renew_after.unwrap().seconds > 0);
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    assert_eq!(verifier.state(&renewed.credential).await.unwrap(), v1::LeaseState::Active);

    until(async || Ok(verifier.state(&issued.credential).await? == v1::LeaseState::Expired)).await.unwrap();
    let admin = world.admin().await.unwrap();
    let ended = admin.lease(&first.id).await.unwrap();
    assert_eq!((&ended.renewed_by, ended.ended_at), (&new.id, earlier.ends_at));
    let (ended_at, issued_at) = (ended.ended_at.unwrap().seconds, new.issued_at.unwrap().seconds);
    assert!((2..=3).contains(&(ended_at - issued_at)), "{issued_at} to {ended_at}");
    assert_eq!(verifier.state(&renewed.credential).await.unwrap(), v1::LeaseState::Active);

    // The next one in the chain, and the first one again.
    let next = pod.renew(&new.id).await.unwrap().lease.unwrap();
    assert_eq!(next.renews, new.id);
    assert_eq!(reason(&refused(&pod, renewal_of(&first.id)).await), "LEASE_RENEWED");
}

async fn nobody_else_renews_or_gives_back_a_lease(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (team, pod, issued) = served(&world).await;
    let lease = id(issued.lease.as_ref());
    let unknown = "01995c5e-0000-7000-8000-000000000007";
    let stranger = world.team("search").await.unwrap();
    let same_account = world.pod(&team.namespace, "api").await.unwrap();
    let other_account = world.pod(&team.namespace, "gate").await.unwrap();
    let other_team = world.pod(&stranger.namespace, "api").await.unwrap();
    for other in [&same_account, &other_account, &other_team] {
        let renewed = [refused(other, renewal_of(&lease)).await, refused(other, renewal_of(unknown)).await];
        let released = [other.release(&lease).await.unwrap(), other.release(unknown).await.unwrap()]
            .map(Result::unwrap_err);
        for [of_it, of_none] in [renewed, released] {
            assert_eq!((of_it.code(), reason(&of_it).as_str()), (Code::NotFound, "NOT_FOUND"));
            assert_eq!(of_it.message().replace(&lease, unknown), of_none.message(), "it tells nothing");
        }
    }
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Active);
    for wrong in ["", "no-id", &"9".repeat(100)] {
        assert_eq!(reason(&refused(&pod, renewal_of(wrong)).await), "INVALID_FIELD");
    }
    pod.renew(&lease).await.unwrap();
}

async fn a_renewal_is_decided_by_the_policy_of_now(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (team, pod, issued) = served(&world).await;
    let lease = id(issued.lease.as_ref());
    let mut narrowed = team.grant_object.clone();
    narrowed["spec"]["scope"] = serde_json::json!(["read"]);
    world.put(&[&narrowed]).await.unwrap();
    let denied = refused(&pod, renewal_of(&lease)).await;
    assert!(is_not_given("SCOPE_NOT_GRANTED", &denied), "{denied}");
    let asked = v1::IssueRequest { scope: vec!["read".to_owned()], ..asking_for(&team.target) };
    let less = pod.ask(asked.clone()).await.unwrap().unwrap().lease.unwrap();

    // What the Grant has again is not the lease's.
    world.put(&[&team.grant_object]).await.unwrap();
    let more = v1::RenewRequest { scope: vec!["write".to_owned()], ..renewal_of(&less.id) };
    assert_eq!(reason(&refused(&pod, more).await), "SCOPE_NOT_GRANTED");
    let kept = pod.renew(&less.id).await.unwrap().lease.unwrap();
    assert_eq!(kept.scope, ["read"]);

    world.remove(&[&team.grant_object]).await.unwrap();
    let denied = refused(&pod, renewal_of(&kept.id)).await;
    assert!(is_not_given("GRANT_UNKNOWN", &denied), "{denied}");
    world.put(&[&team.grant_object]).await.unwrap();
    let again = pod.ask(asked).await.unwrap().unwrap().lease.unwrap();
    world.remove(&[&team.owner_object]).await.unwrap();
    let denied = refused(&pod, renewal_of(&again.id)).await;
    assert!(is_not_given("UNOWNED", &denied), "{denied}");
}

/// Denied for this reason; or the lease has been ended for it already.
fn is_not_given(expected: &str, denied: &Status) -> bool {
    [expected, "LEASE_ENDED"].contains(&reason(denied).as_str())
}

async fn what_was_revoked_is_not_renewed(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (team, pod, issued) = served(&world).await;
    let lease = id(issued.lease.as_ref());
    let operator = world.admin().await.unwrap();
    operator.revoke(lease_of(&lease)).await.unwrap();
    let ended = refused(&pod, renewal_of(&lease)).await;
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::FailedPrecondition, "LEASE_ENDED"));
    assert!(ended.message().contains("by Issue"), "{}", ended.message());

    let again = pod.issue(&team.target).await.unwrap().lease.unwrap();
    operator.hold(owned_by(&team.owner)).await.unwrap();
    assert_eq!(reason(&refused(&pod, renewal_of(&again.id)).await), "LEASE_ENDED");
    assert_eq!(reason(&pod.is_denied(&team.target).await.unwrap()), "HELD");
}

async fn a_terminating_pod_renews_and_gets_nothing_new(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (team, pod, issued) = served(&world).await;
    world.cluster().delete_pod(&pod.namespace, &pod.name, false).await.unwrap();
    until(async || match pod.ask(asking_for(&team.target)).await? {
        Ok(_) => Ok(false),
        Err(denied) => Ok(reason(&denied) == "POD_TERMINATING"),
    })
    .await
    .unwrap();
    let renewed = pod.renew(&id(issued.lease.as_ref())).await.unwrap().lease.unwrap();
    world.cluster().delete_pod(&pod.namespace, &pod.name, true).await.unwrap();
    until(async || match pod.ask_to_renew(renewal_of(&renewed.id)).await? {
        Ok(_) => Ok(true),
        Err(denied) => Ok(["POD_GONE", "TOKEN_REFUSED"].contains(&reason(&denied).as_str())),
    })
    .await
    .unwrap();
}

async fn of_renewals_at_once_one_wins(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (team, pod, issued) = served(&world).await;
    let mut lease = id(issued.lease.as_ref());
    for _ in 0..5 {
        let answers = join_all((0..8).map(|_| pod.ask_to_renew(renewal_of(&lease)))).await;
        let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().map(Result::unwrap).partition(Result::is_ok);
        assert_eq!(won.len(), 1);
        for refused in lost {
            assert_eq!(reason(&refused.unwrap_err()), "LEASE_RENEWED");
        }
        lease = id(won.into_iter().next().unwrap().unwrap().lease.as_ref());
    }
    let admin = world.admin().await.unwrap();
    let all = admin.all_leases(leases_of(&team.owner)).await.unwrap();
    check_chain(&all);
    assert_eq!(all.len(), 6);
}

/// Each lease but the last is renewed by the next.
fn check_chain(leases: &[v1::Lease]) {
    for pair in leases.windows(2) {
        assert_eq!((&pair[0].renewed_by, &pair[1].renews), (&pair[1].id, &pair[0].id));
    }
    assert_eq!(leases.first().map(|lease| lease.renews.as_str()), Some(""));
    assert_eq!(leases.last().map(|lease| lease.renewed_by.as_str()), Some(""));
}

async fn a_lease_is_given_back_once(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (team, pod, issued) = served(&world).await;
    let lease = id(issued.lease.as_ref());
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    let released = pod.release(&lease).await.unwrap().unwrap();
    assert_eq!(released.state(), v1::LeaseState::Released);
    assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Released);
    assert_eq!(pod.release(&lease).await.unwrap().unwrap(), released, "as it was");
    assert_eq!(reason(&refused(&pod, renewal_of(&lease)).await), "LEASE_ENDED");

    let revoked = pod.issue(&team.target).await.unwrap().lease.unwrap();
    let rule = world.admin().await.unwrap().revoke(lease_of(&revoked.id)).await.unwrap();
    let answer = pod.release(&revoked.id).await.unwrap().unwrap();
    assert_eq!((answer.state(), &answer.revoked_by), (v1::LeaseState::Revoked, &rule.id));
}

async fn a_repeated_renewal_is_the_same_and_decided_afresh(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (team, pod, issued) = served(&world).await;
    let lease = id(issued.lease.as_ref());
    let keyed = v1::RenewRequest { idempotency_key: "rollout-7".to_owned(), ..renewal_of(&lease) };
    let first = pod.ask_to_renew(keyed.clone()).await.unwrap().unwrap();
    let again = pod.ask_to_renew(keyed.clone()).await.unwrap().unwrap();
    assert_eq!(again.lease, first.lease);
    assert_ne!(again.credential, first.credential, "signed again");
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    for credential in [&first.credential, &again.credential] {
        assert_eq!(verifier.state(credential).await.unwrap(), v1::LeaseState::Active);
    }
    // Another request, another caller, another method.
    let changed = v1::RenewRequest { scope: vec!["read".to_owned()], ..keyed.clone() };
    assert_eq!(reason(&refused(&pod, changed).await), "IDEMPOTENCY_KEY_REUSED");
    let other = world.pod(&team.namespace, "api").await.unwrap();
    assert_eq!(reason(&refused(&other, keyed.clone()).await), "NOT_FOUND");
    let issue = v1::IssueRequest { idempotency_key: "rollout-7".to_owned(), ..asking_for(&team.target) };
    let fresh = pod.ask(issue).await.unwrap().unwrap().lease.unwrap();
    assert!(fresh.id > id(first.lease.as_ref()) && fresh.renews.is_empty());

    let mut narrowed = team.grant_object.clone();
    narrowed["spec"]["scope"] = serde_json::json!(["read"]);
    world.put(&[&narrowed]).await.unwrap();
    let denied = refused(&pod, keyed.clone()).await;
    assert!(is_not_given("SCOPE_NOT_GRANTED", &denied), "{denied}");
    world.put(&[&team.grant_object]).await.unwrap();
    let admin = world.admin().await.unwrap();
    admin.revoke(lease_of(&id(first.lease.as_ref()))).await.unwrap();
    assert_eq!(reason(&refused(&pod, keyed).await), "LEASE_ENDED");
}

/// The caller goes away at some moment: before the request is read, while it is decided, minted, committed, or answered.
async fn an_answer_that_was_lost_is_asked_for_again(kind: Kind) {
    const ROUNDS: u64 = 40;
    let world = World::shared(kind).await.unwrap();
    let (team, pod, issued) = served(&world).await;
    let mut last = id(issued.lease.as_ref());
    for round in 0..ROUNDS {
        let after = Duration::from_micros(round * 250);
        let key = format!("round-{round}");
        let issue = v1::IssueRequest { idempotency_key: key.clone(), ..asking_for(&team.target) };
        // An answer that came in time is as good as lost: it is not looked at.
        let _ = tokio::time::timeout(after, pod.ask(issue.clone())).await;
        let one = pod.ask(issue.clone()).await.unwrap().unwrap().lease.unwrap();
        assert_eq!(pod.ask(issue).await.unwrap().unwrap().lease.unwrap().id, one.id);

        let renewal = v1::RenewRequest { idempotency_key: key, ..renewal_of(&last) };
        let _ = tokio::time::timeout(after, pod.ask_to_renew(renewal.clone())).await;
        let renewed = pod.ask_to_renew(renewal).await.unwrap().unwrap().lease.unwrap();
        assert_eq!(renewed.renews, last);
        last = renewed.id;
    }
    let all = world.admin().await.unwrap().all_leases(leases_of(&team.owner)).await.unwrap();
    let (issued, renewed): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|lease| lease.renews.is_empty() && lease.renewed_by.is_empty());
    assert_eq!(issued.len() as u64, ROUNDS, "one lease for each key");
    assert_eq!(renewed.len() as u64, ROUNDS + 1);
    check_chain(&renewed);
}

async fn renewals_survive_a_crash(kind: Kind) {
    const ROUNDS: u64 = 6;
    let world = World::with_own_broker(kind, Options::default()).await.unwrap();
    let (team, pod, issued) = served(&world).await;
    let mut last = id(issued.lease.as_ref());
    for round in 0..ROUNDS {
        let renewal = v1::RenewRequest { idempotency_key: format!("round-{round}"), ..renewal_of(&last) };
        let asked = pod.ask_to_renew(renewal.clone());
        let crash = async {
            tokio::time::sleep(Duration::from_millis(round * 2)).await;
            world.broker().kill9().await.unwrap();
        };
        let (answer, ()) = tokio::join!(asked, crash);
        world.broker().launch().await.unwrap();
        let repeated = pod.ask_to_renew(renewal).await.unwrap().unwrap().lease.unwrap();
        if let Ok(answered) = answer.unwrap() {
            assert_eq!(answered.lease.unwrap().id, repeated.id, "what was answered is there");
        }
        assert_eq!(repeated.renews, last);
        last = repeated.id;
    }
    let all = world.admin().await.unwrap().all_leases(leases_of(&team.owner)).await.unwrap();
    assert_eq!(all.len() as u64, ROUNDS + 1);
    check_chain(&all);
    world.broker().stop().await.unwrap();
    let store = world.broker().store_dir().display().to_string();
    let (status, said) = world.broker().command(&["store", "verify", &store]).await.unwrap();
    assert!(status.success() && said.contains("whole"), "{said}");
}
