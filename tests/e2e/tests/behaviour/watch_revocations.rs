//! A verifier watches revocations.

use std::time::Duration;

use dayfly_api::v1;
use dayfly_e2e::broker::Options;
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::run::until;
use dayfly_e2e::world::{Verifier, World, bearing, owned_by, reason};
use tokio::time::{Instant, timeout};
use tonic::{Code, Status, Streaming};

on_both!(
    a_verifier_is_told_what_is_in_force_and_each_rule_at_once,
    a_watch_goes_on_where_it_was_after_a_restart,
    what_another_target_is_revoked_for_is_not_told,
    a_watch_ends_when_no_target_lists_the_verifier,
    a_watch_ends_with_the_verifiers_pod,
    only_verifiers_watch_and_each_so_many_times,
    a_reader_that_takes_nothing_is_cut_and_the_others_are_told,
    what_no_claim_says_is_spelled_out_lease_by_lease,
);

type News = Streaming<v1::WatchRevocationsResponse>;

/// Longer than two heartbeats.
const PATIENCE: Duration = Duration::from_secs(12);

async fn message(news: &mut News) -> Result<v1::WatchRevocationsResponse, Status> {
    let next = timeout(PATIENCE, news.message()).await.unwrap_or_else(|_| panic!("the stream is silent"));
    next.map(|message| message.unwrap_or_else(|| panic!("the stream ends without a reason")))
}

/// A watch whose first list was told: with that list, and where it can be resumed.
async fn watching(verifier: &Verifier, resume: &str) -> (News, Vec<v1::RevocationRule>, String) {
    let mut news = verifier.watch(resume).await.unwrap();
    let mut rules = Vec::new();
    loop {
        let message = message(&mut news).await.unwrap();
        assert_eq!(message.snapshot, resume.is_empty());
        assert!(message.rules.len() <= 100);
        rules.extend(message.rules);
        if !message.more {
            return (news, rules, message.resume);
        }
    }
}

/// The message that tells of this rule; others' rules and heartbeats are passed by.
async fn told(news: &mut News, id: &str) -> (v1::RevocationRule, v1::WatchRevocationsResponse) {
    loop {
        let message = message(news).await.unwrap();
        if let Some(rule) = message.rules.iter().find(|rule| rule.id == id) {
            return (rule.clone(), message);
        }
    }
}

/// Why it ends.
async fn end(news: &mut News) -> Status {
    loop {
        if let Err(status) = message(news).await {
            return status;
        }
    }
}

fn ids(rules: &[v1::RevocationRule]) -> Vec<&str> {
    rules.iter().map(|rule| &*rule.id).collect()
}

fn as_verifiers_see(rule: v1::Rule) -> v1::RevocationRule {
    let v1::Rule { id, position, selector, cut_off, after, until, .. } = rule;
    v1::RevocationRule { id, position, selector, cut_off, after, until }
}

async fn a_verifier_is_told_what_is_in_force_and_each_rule_at_once(kind: Kind) {
    const SOON: Duration = Duration::from_millis(500);
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    pod.issue(&team.target).await.unwrap();
    let operator = world.operator(&["revoke"], Some(&team.owner)).await.unwrap();
    let before = operator.revoke(owned_by(&team.owner)).await.unwrap();
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    let (mut news, rules, _) = watching(&verifier, "").await;
    assert!(rules.is_sorted_by_key(|rule| rule.position));
    assert!(ids(&rules).contains(&&*before.id), "{rules:?}");

    let lease = pod.issue(&team.target).await.unwrap().lease.unwrap();
    let hold = operator.hold(owned_by(&team.owner)).await.unwrap();
    let answered = Instant::now();
    let (rule, message) = told(&mut news, &hold.id).await;
    assert!(answered.elapsed() < SOON, "told after {:?}", answered.elapsed());
    assert_eq!(rule, as_verifiers_see(hold.clone()));
    assert!(message.position >= hold.position && !message.snapshot && !message.more);
    assert!(
        before.cut_off < lease.id && lease.id <= rule.cut_off,
        "it covers what was issued between the two"
    );
    world.operator(&["lift"], None).await.unwrap().lift(&hold.id).await.unwrap();
    while !self::message(&mut news).await.unwrap().lifted.contains(&hold.id) {}
    loop {
        let heartbeat = self::message(&mut news).await.unwrap();
        if heartbeat.rules.is_empty() {
            break assert!(heartbeat.position >= hold.position);
        }
    }
}

async fn a_watch_goes_on_where_it_was_after_a_restart(kind: Kind) {
    let world = World::with_own_broker(kind, Options::default()).await.unwrap();
    let team = world.team("payments").await.unwrap();
    // Rules are in force for as long as what it has.
    world.pod(&team.namespace, "api").await.unwrap().issue(&team.target).await.unwrap();
    let admin = world.admin().await.unwrap();
    let one = admin.revoke(owned_by(&team.owner)).await.unwrap();
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    let (mut news, rules, resume) = watching(&verifier, "").await;
    assert_eq!(ids(&rules), [&*one.id]);
    let (ended, stopped) = tokio::join!(end(&mut news), world.broker().stop());
    stopped.unwrap();
    assert_eq!(reason(&ended), "NOT_READY");

    world.broker().launch().await.unwrap();
    let two = admin.revoke(owned_by(&team.owner)).await.unwrap();
    let (mut news, rules, resume) = watching(&verifier, &resume).await;
    assert_eq!(ids(&rules), [&*two.id], "what it has is not told again");
    let three = admin.hold(owned_by(&team.owner)).await.unwrap();
    told(&mut news, &three.id).await;
    world.broker().kill9().await.unwrap();
    end(&mut news).await;
    world.broker().launch().await.unwrap();
    assert_eq!(
        ids(&watching(&verifier, &resume).await.1),
        [&*three.id],
        "told again to who did not say it has it"
    );
    assert_eq!(ids(&watching(&verifier, "").await.1), [&*one.id, &*two.id, &*three.id]);
    let refused = verifier.watch("AAAA").await.unwrap_err();
    assert_eq!((refused.code(), &*reason(&refused)), (Code::OutOfRange, "RESUME_OUT_OF_RANGE"));
}

async fn what_another_target_is_revoked_for_is_not_told(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let other = world.team("orders").await.unwrap();
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    let admin = world.admin().await.unwrap();
    let by_target = |target: &str| v1::Selector { target: target.to_owned(), ..v1::Selector::default() };
    let (mut news, ..) = watching(&verifier, "").await;
    let theirs = admin.revoke(by_target(&other.target)).await.unwrap();
    let ours = admin.revoke(by_target(&team.target)).await.unwrap();
    loop {
        let message = message(&mut news).await.unwrap();
        assert!(!ids(&message.rules).contains(&&*theirs.id));
        if ids(&message.rules).contains(&&*ours.id) {
            break;
        }
    }
    assert!(!ids(&watching(&verifier, "").await.1).contains(&&*theirs.id));
}

async fn a_watch_ends_when_no_target_lists_the_verifier(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let mut team = world.team("payments").await.unwrap();
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    let (mut news, _, resume) = watching(&verifier, "").await;
    team.target_object["spec"]["verifiers"] = serde_json::json!([]);
    world.put(&[&team.target_object]).await.unwrap();
    let ended = end(&mut news).await;
    assert_eq!((ended.code(), &*reason(&ended)), (Code::PermissionDenied, "NOT_A_VERIFIER"));
    for resume in ["", &resume] {
        assert_eq!(reason(&verifier.watch(resume).await.unwrap_err()), "NOT_A_VERIFIER");
    }
    let pod = world.verifier(&team.namespace, "api").await.unwrap();
    assert_eq!(reason(&pod.watch("").await.unwrap_err()), "NOT_A_VERIFIER");
}

async fn a_watch_ends_with_the_verifiers_pod(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "gate").await.unwrap();
    let token = pod.token_for("dayfly-verifier").await.unwrap();
    let request = bearing(&token, v1::WatchRevocationsRequest::default());
    let mut news = world.verifiers().watch_revocations(request).await.unwrap().into_inner();
    message(&mut news).await.unwrap();
    world.cluster().delete_pod(&pod.namespace, &pod.name, true).await.unwrap();
    let ended = end(&mut news).await;
    assert!(["POD_GONE", "TOKEN_REFUSED"].contains(&&*reason(&ended)), "{ended:?}");
}

async fn only_verifiers_watch_and_each_so_many_times(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "gate").await.unwrap();
    let admin = world.admin().await.unwrap();
    for token in [&*pod.token().await.unwrap(), admin.token()] {
        let request = bearing(token, v1::WatchRevocationsRequest::default());
        let refused = world.verifiers().watch_revocations(request).await.unwrap_err();
        assert_eq!((refused.code(), &*reason(&refused)), (Code::Unauthenticated, "TOKEN_AUDIENCE"));
    }
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(watching(&verifier, "").await);
    }
    let refused = verifier.watch("").await.unwrap_err();
    assert_eq!((refused.code(), &*reason(&refused)), (Code::ResourceExhausted, "OVERLOADED"));
    watching(&world.verifier(&team.namespace, "gate").await.unwrap(), "").await;
    drop(open);
    // The places come back when the broker sees that the streams are gone.
    until(async || Ok(verifier.watch("").await.is_ok())).await.unwrap();
}

async fn a_reader_that_takes_nothing_is_cut_and_the_others_are_told(kind: Kind) {
    let world = World::with_own_broker(kind, Options::default()).await.unwrap();
    let team = world.team("payments").await.unwrap();
    // Rules are in force for as long as what it has.
    world.pod(&team.namespace, "api").await.unwrap().issue(&team.target).await.unwrap();
    let admin = world.admin().await.unwrap();
    let [slow, quick] = [
        world.verifier(&team.namespace, "gate").await.unwrap(),
        world.verifier(&team.namespace, "gate").await.unwrap(),
    ];
    let mut unread = Vec::new();
    for _ in 0..4 {
        let connection = world.broker().channel_that_reads_nothing().unwrap();
        unread.push(slow.watch_by(connection, "").await.unwrap());
    }
    let is_full = async || slow.watch("").await.is_err_and(|status| reason(&status) == "OVERLOADED");
    assert!(is_full().await);
    let (mut news, ..) = watching(&quick, "").await;
    let rule = admin.revoke(owned_by(&team.owner)).await.unwrap();
    told(&mut news, &rule.id).await;
    // They are cut, although heartbeats are all that they do not take: its places are its own again.
    until(async || Ok(!is_full().await)).await.unwrap();
    let (_, rules, _) = watching(&slow, "").await;
    assert_eq!(ids(&rules), [&*rule.id]);
    drop(unread);
}

async fn what_no_claim_says_is_spelled_out_lease_by_lease(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let admin = world.admin().await.unwrap();
    let [one, two] = [pod.issue(&team.target).await.unwrap(), pod.issue(&team.target).await.unwrap()]
        .map(|issued| issued.lease.unwrap().id);
    let credential_id = admin.lease(&one).await.unwrap().workload.unwrap().credential_id;
    assert!(!credential_id.is_empty());
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    let elsewhere = world.team("orders").await.unwrap();
    let other = world.verifier(&elsewhere.namespace, "gate").await.unwrap();
    let (mut news, ..) = watching(&verifier, "").await;
    let (mut others, ..) = watching(&other, "").await;
    let rule = admin.revoke(v1::Selector { credential_id, ..v1::Selector::default() }).await.unwrap();
    for (news, leases) in [(&mut news, vec![one, two]), (&mut others, vec![])] {
        let mut covered = Vec::new();
        let mut complete = false;
        while !complete {
            for told in message(news).await.unwrap().covered.into_iter().filter(|told| told.rule == rule.id) {
                covered.extend(told.leases);
                complete |= told.complete;
            }
        }
        assert_eq!(covered, leases);
    }
    let spelled = admin.revocation_and_counts(&rule.id).await.unwrap().spelled_out.unwrap();
    assert_eq!(spelled, v1::SpelledOut { told: 2, total: 2, complete: true });
}
