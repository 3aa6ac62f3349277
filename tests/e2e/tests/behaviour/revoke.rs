//! Revocation: by whom, of what, at once, and of nothing else.

use std::sync::atomic::{AtomicBool, Ordering};

use dayfly_api::v1;
use dayfly_e2e::broker::Options;
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::run::until;
use dayfly_e2e::world::{Pod, Team, World, asking_for, leases_of, owned_by, reason, revocation};
use futures_util::future::join_all;

on_both!(
    nothing_issued_before_a_revocation_in_a_storm_survives_it,
    a_hold_keeps_what_it_covers_from_new_credentials,
    a_hold_in_a_storm_lets_nothing_through,
    a_lease_stays_with_the_owner_it_was_issued_under,
    repeats_at_once_write_one_rule,
    a_revocation_ends_what_its_selector_says_and_nothing_else,
    a_revocation_of_everything_says_so,
    a_dry_run_writes_nothing,
    an_operator_ends_what_its_rights_cover,
    a_repeated_revocation_is_the_same,
    a_revocation_that_says_too_little_is_refused,
    a_lifted_hold_lets_new_ones_through_and_what_it_ended_stays_ended,
    a_hold_from_above_is_lifted_from_above,
    revocations_are_listed_newest_first_to_those_who_may,
    what_a_revocation_ended_is_counted_also_after_a_restart,
    an_answer_to_a_revocation_says_what_an_operator_needs_at_once,
);

/// What an operator picks out of what was issued.
type Select<'a> = Box<dyn Fn(&[v1::IssueResponse]) -> v1::Selector + 'a>;

struct Storm {
    id: String,
    owner: String,
    credential: String,
    asked: tokio::time::Instant,
    answered: tokio::time::Instant,
}

/// Issues to this pod without a pause until told to stop.
async fn issue_until(pod: &Pod<'_>, team: &Team, stop: &AtomicBool) -> Vec<Storm> {
    let mut issued = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let asked = tokio::time::Instant::now();
        let answer = match pod.ask(asking_for(&team.target)).await.unwrap() {
            Ok(answer) => answer,
            // Decided three times and outrun each time: a client asks again.
            Err(status) if reason(&status) == "DECISION_OUTRUN" => continue,
            Err(status) => panic!("{status:?}"),
        };
        issued.push(Storm {
            id: answer.lease.unwrap().id,
            owner: team.owner.clone(),
            credential: answer.credential,
            asked,
            answered: tokio::time::Instant::now(),
        });
    }
    issued
}

async fn nothing_issued_before_a_revocation_in_a_storm_survives_it(kind: Kind) {
    const CLIENTS: usize = 8;
    let world = World::shared(kind).await.unwrap();
    let mut teams = Vec::new();
    for name in ["payments", "orders", "search"] {
        teams.push(world.team(name).await.unwrap());
    }
    let mut pods = Vec::new();
    for client in 0..CLIENTS {
        pods.push(world.pod(&teams[client % teams.len()].namespace, "api").await.unwrap());
    }
    let stop = AtomicBool::new(false);
    let storm =
        join_all(pods.iter().enumerate().map(|(n, pod)| issue_until(pod, &teams[n % teams.len()], &stop)));
    let operator = world.operator(&["revoke", "list", "get"], Some(&teams[0].owner)).await.unwrap();
    let revoke = async {
        let mut rules = Vec::new();
        for round in 0..3_usize {
            until(async || {
                let mine = v1::ListLeasesRequest { page_size: 1000, ..leases_of(&teams[0].owner) };
                Ok(operator.all_leases(mine).await?.len() >= (round + 1) * 10)
            })
            .await
            .unwrap();
            let asked = tokio::time::Instant::now();
            let rule = operator.revoke(owned_by(&teams[0].owner)).await.unwrap();
            rules.push((asked, rule, tokio::time::Instant::now()));
        }
        until(async || {
            let active = v1::ListLeasesRequest { active_only: true, ..leases_of(&teams[0].owner) };
            Ok(!operator.leases(active).await?.leases.is_empty())
        })
        .await
        .unwrap();
        stop.store(true, Ordering::Relaxed);
        rules
    };
    let (issued, rules) = tokio::join!(storm, revoke);

    let (_, last, _) = rules.last().unwrap();
    let admin = world.admin().await.unwrap();
    let verifiers = join_all(teams.iter().map(|team| world.verifier(&team.namespace, "gate"))).await;
    let (mut ended, mut living) = (0, 0);
    for one in issued.iter().flatten() {
        let mine = one.owner == teams[0].owner;
        for (asked, rule, answered) in &rules {
            assert!(
                !mine || one.answered >= *asked || one.id <= rule.cut_off,
                "{} came before the cut-off",
                one.id
            );
            assert!(
                !mine || one.asked <= *answered || one.id > rule.cut_off,
                "{} came after the cut-off",
                one.id
            );
        }
        let expected =
            if mine && one.id <= last.cut_off { v1::LeaseState::Revoked } else { v1::LeaseState::Active };
        ended += usize::from(expected == v1::LeaseState::Revoked);
        living += usize::from(mine && expected == v1::LeaseState::Active);
        assert_eq!(admin.lease(&one.id).await.unwrap().state(), expected, "{} of {}", one.id, one.owner);
        let team = teams.iter().position(|team| team.owner == one.owner).unwrap();
        let state = verifiers[team].as_ref().unwrap().state(&one.credential).await.unwrap();
        assert_eq!(state, expected, "{} of {}", one.id, one.owner);
    }
    assert!(ended > 0 && living > 0, "{ended} ended and {living} issued after that");
    let active = v1::ListLeasesRequest { active_only: true, ..leases_of(&teams[0].owner) };
    for lease in admin.all_leases(active).await.unwrap() {
        assert!(lease.id > last.cut_off, "lease {} survived", lease.id);
    }
}

async fn a_hold_keeps_what_it_covers_from_new_credentials(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (held, free) = (world.team("payments").await.unwrap(), world.team("orders").await.unwrap());
    let pods =
        [world.pod(&held.namespace, "api").await.unwrap(), world.pod(&free.namespace, "api").await.unwrap()];
    let issued = pods[0].issue(&held.target).await.unwrap();
    let operator = world.operator(&["revoke"], Some(&held.owner)).await.unwrap();
    let answer = operator.ask(revocation(owned_by(&held.owner), v1::After::Hold)).await.unwrap();
    assert!(!answer.can_reissue, "{answer:?}");

    let verifier = world.verifier(&held.namespace, "gate").await.unwrap();
    assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Revoked);
    let denied = pods[0].is_denied(&held.target).await.unwrap();
    assert_eq!((reason(&denied).as_str(), denied.code()), ("HELD", tonic::Code::PermissionDenied));
    assert!(denied.message().contains("a test says so"), "it is told why: {denied:?}");
    pods[1].issue(&free.target).await.unwrap();
    // A later revocation that allows reissue does not lift it, and says so.
    let later = operator.ask(revocation(owned_by(&held.owner), v1::After::Reissue)).await.unwrap();
    assert!(!later.can_reissue, "{later:?}");
    assert_eq!(reason(&pods[0].is_denied(&held.target).await.unwrap()), "HELD");
}

async fn a_hold_in_a_storm_lets_nothing_through(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let mut pods = Vec::new();
    for _ in 0..6 {
        pods.push(world.pod(&team.namespace, "api").await.unwrap());
    }
    let operator = world.operator(&["revoke", "list"], Some(&team.owner)).await.unwrap();
    let issuing = join_all(pods.iter().map(async |pod| {
        loop {
            match pod.ask(asking_for(&team.target)).await.unwrap() {
                Ok(_) => {}
                Err(status) if reason(&status) == "DECISION_OUTRUN" => {}
                Err(status) => return reason(&status),
            }
        }
    }));
    let hold = async {
        until(async || Ok(operator.leases(leases_of(&team.owner)).await?.leases.len() > 20)).await.unwrap();
        operator.hold(owned_by(&team.owner)).await.unwrap()
    };
    let (ends, rule) = tokio::join!(issuing, hold);
    assert_eq!(ends, ["HELD"; 6]);
    for lease in operator.all_leases(leases_of(&team.owner)).await.unwrap() {
        assert!(lease.id <= rule.cut_off && lease.state() == v1::LeaseState::Revoked, "{lease:?}");
    }
}

/// Also when that owner, the namespace and the pod are gone: the authority to revoke does not lie in what is ended.
async fn a_lease_stays_with_the_owner_it_was_issued_under(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (mut old, mut new) = (world.team("payments").await.unwrap(), world.team("orders").await.unwrap());
    let pod = world.pod(&old.namespace, "api").await.unwrap();
    let before = pod.issue(&old.target).await.unwrap();
    let operators = [
        world.operator(&["revoke", "get"], Some(&old.owner)).await.unwrap(),
        world.operator(&["revoke", "get"], Some(&new.owner)).await.unwrap(),
    ];
    // The namespace goes to the other owner, and its former one leaves policy.
    new.owner_object["spec"]["namespaces"]["names"] = serde_json::json!([new.namespace, old.namespace]);
    world.broker().remove(&old.owner_object).unwrap();
    world.put(&[&new.owner_object]).await.unwrap();
    let after = pod.issue(&old.target).await.unwrap();
    assert_eq!(after.lease.clone().unwrap().owner, new.owner);

    let verifier = world.verifier(&old.namespace, "gate").await.unwrap();
    let states = async || {
        [verifier.state(&before.credential).await.unwrap(), verifier.state(&after.credential).await.unwrap()]
    };
    let rule = operators[1].revoke(owned_by(&new.owner)).await.unwrap();
    assert_eq!(states().await[1], v1::LeaseState::Revoked);
    let id = before.lease.clone().unwrap().id;
    // Dayfly itself may have ended the earlier one by now, since another Owner answers for its namespace.
    let ended_by = world.admin().await.unwrap().lease(&id).await.unwrap().revoked_by;
    assert_ne!(ended_by, rule.id, "it is not the new owner's");
    assert_eq!(reason(&operators[1].lease(&id).await.unwrap_err()), "NOT_FOUND");
    world.cluster().delete_pod(&pod.namespace, &pod.name, true).await.unwrap();
    world.cluster().delete_namespace(&new.namespace).await.unwrap();
    old.target_object["spec"]["maxTtl"] = "5m".into();
    world.put(&[&old.target_object]).await.unwrap();
    operators[0].revoke(owned_by(&old.owner)).await.unwrap();
    assert_eq!(states().await, [v1::LeaseState::Revoked; 2]);
    assert_eq!(operators[0].lease(&id).await.unwrap().owner, old.owner);
}

async fn repeats_at_once_write_one_rule(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let operator = world.operator(&["revoke"], Some(&team.owner)).await.unwrap();
    let request = v1::RevokeRequest {
        idempotency_key: "incident-8".to_owned(),
        ..revocation(owned_by(&team.owner), v1::After::Reissue)
    };
    let answers = join_all((0..8).map(|_| operator.ask(request.clone()))).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| !answer.repeated).count(), 1);
    assert!(answers.iter().all(|answer| answer.rule == answers[0].rule));
}

async fn a_revocation_ends_what_its_selector_says_and_nothing_else(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let mut team = world.unsettled_team("payments").await.unwrap();
    team.grant_object["spec"]["serviceAccounts"] = serde_json::json!(["api", "gate"]);
    world.put(&[&team.owner_object, &team.target_object, &team.grant_object]).await.unwrap();
    let [a, b] =
        [world.pod(&team.namespace, "api").await.unwrap(), world.pod(&team.namespace, "api").await.unwrap()];
    let gate = world.pod(&team.namespace, "gate").await.unwrap();
    let admin = world.admin().await.unwrap();
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    let account_uid =
        |issued: &v1::IssueResponse| issued.lease.clone().unwrap().workload.unwrap().service_account_uid;
    let none = v1::Selector::default;
    let namespace = team.namespace.clone();

    // Of four leases (twice of pod a, once of b, once of the other account's), these are ended.
    let cases: Vec<(&str, Select<'_>, [bool; 4])> = vec![
        (
            "lease",
            Box::new(|i| v1::Selector { lease: i[0].lease.clone().unwrap().id, ..none() }),
            [true, false, false, false],
        ),
        (
            "pod by uid",
            Box::new(|_| v1::Selector { pod: a.uid.clone(), ..none() }),
            [true, true, false, false],
        ),
        (
            "pod by name",
            Box::new(|_| v1::Selector { pod: b.name.clone(), namespace: namespace.clone(), ..none() }),
            [false, false, true, false],
        ),
        (
            "service account by uid",
            Box::new(|i| v1::Selector { service_account: account_uid(&i[0]), ..none() }),
            [true, true, true, false],
        ),
        (
            "service account by name",
            Box::new(|_| v1::Selector {
                service_account: "gate".to_owned(),
                namespace: namespace.clone(),
                ..none()
            }),
            [false, false, false, true],
        ),
        (
            "grant and pod",
            Box::new(|_| v1::Selector {
                grant: format!("{namespace}/api-ledger"),
                pod: gate.uid.clone(),
                ..none()
            }),
            [false, false, false, true],
        ),
        (
            "the presented token",
            Box::new(|i| v1::Selector {
                credential_id: i[2].lease.clone().unwrap().workload.unwrap().credential_id,
                ..none()
            }),
            [false, false, true, false],
        ),
        (
            "grant",
            Box::new(|_| v1::Selector { grant: format!("{namespace}/api-ledger"), ..none() }),
            [true; 4],
        ),
        (
            "node and pod",
            Box::new(|i| {
                let node_uid = i[0].lease.clone().unwrap().workload.unwrap().node_uid;
                v1::Selector { node_uid, pod: b.uid.clone(), ..none() }
            }),
            [false, false, true, false],
        ),
        (
            "signing key and namespace",
            Box::new(|i| v1::Selector {
                key_id: i[0].lease.clone().unwrap().key_id,
                namespace: namespace.clone(),
                ..none()
            }),
            [true; 4],
        ),
        ("target", Box::new(|_| v1::Selector { target: team.target.clone(), ..none() }), [true; 4]),
        ("namespace", Box::new(|_| v1::Selector { namespace: namespace.clone(), ..none() }), [true; 4]),
    ];
    for (what, select, ended) in cases {
        let mut issued = Vec::new();
        for pod in [&a, &a, &b, &gate] {
            issued.push(pod.issue(&team.target).await.unwrap());
        }
        admin.revoke(select(&issued)).await.unwrap_or_else(|status| panic!("by {what}: {status:?}"));
        for (n, (issued, ended)) in issued.iter().zip(ended).enumerate() {
            let expected = if ended { v1::LeaseState::Revoked } else { v1::LeaseState::Active };
            assert_eq!(verifier.state(&issued.credential).await.unwrap(), expected, "by {what}: lease {n}");
        }
    }
}

async fn a_revocation_of_everything_says_so(kind: Kind) {
    let world = World::with_own_broker(kind, Options::default()).await.unwrap();
    let teams = [world.team("payments").await.unwrap(), world.team("orders").await.unwrap()];
    let mut issued = Vec::new();
    for team in &teams {
        let pod = world.pod(&team.namespace, "api").await.unwrap();
        issued.push((pod.issue(&team.target).await.unwrap(), pod));
    }
    let all = v1::Selector { all: true, ..v1::Selector::default() };
    let of_one = world.operator(&["revoke"], Some(&teams[0].owner)).await.unwrap();
    assert_eq!(reason(&of_one.revoke(all.clone()).await.unwrap_err()), "NOT_ALLOWED");
    let admin = world.admin().await.unwrap();
    let contradiction = v1::Selector { all: true, ..owned_by(&teams[0].owner) };
    assert_eq!(reason(&admin.revoke(contradiction).await.unwrap_err()), "INVALID_FIELD");
    let rule = admin.revoke(all.clone()).await.unwrap();
    assert_eq!(rule.selector.unwrap(), all);
    for (team, (issued, pod)) in teams.iter().zip(&issued) {
        let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
        assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Revoked);
        let again = pod.issue(&team.target).await.unwrap();
        assert_eq!(verifier.state(&again.credential).await.unwrap(), v1::LeaseState::Active);
    }
    admin.hold(all).await.unwrap();
    for (team, (_, pod)) in teams.iter().zip(&issued) {
        assert_eq!(reason(&pod.is_denied(&team.target).await.unwrap()), "HELD");
    }
}

async fn a_dry_run_writes_nothing(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let mut issued = Vec::new();
    for _ in 0..3 {
        issued.push(pod.issue(&team.target).await.unwrap());
    }
    let operator = world.operator(&["revoke", "list"], Some(&team.owner)).await.unwrap();
    let dry = v1::RevokeRequest { dry_run: true, ..revocation(owned_by(&team.owner), v1::After::Hold) };
    let answer = operator.ask(dry).await.unwrap();
    assert_eq!((answer.rule, answer.would_cover, answer.would_cover_at_least), (None, 3, false));
    assert!(!answer.can_reissue && answer.resolved.contains(&team.owner));
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    assert_eq!(verifier.state(&issued[0].credential).await.unwrap(), v1::LeaseState::Active);
    pod.issue(&team.target).await.unwrap();
    let stranger = world.operator(&["list"], Some(&team.owner)).await.unwrap();
    let dry = v1::RevokeRequest { dry_run: true, ..revocation(owned_by(&team.owner), v1::After::Hold) };
    assert_eq!(reason(&stranger.ask(dry).await.unwrap_err()), "NOT_ALLOWED");
}

async fn an_operator_ends_what_its_rights_cover(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (mine, theirs) = (world.team("payments").await.unwrap(), world.team("orders").await.unwrap());
    let pods = [
        world.pod(&mine.namespace, "api").await.unwrap(),
        world.pod(&theirs.namespace, "api").await.unwrap(),
    ];
    let issued = [pods[0].issue(&mine.target).await.unwrap(), pods[1].issue(&theirs.target).await.unwrap()];
    let ids = issued.clone().map(|issued| issued.lease.unwrap().id);
    let none = v1::Selector::default;
    let nobody = world.operator(&[], None).await.unwrap();
    let reader = world.operator(&["get", "list"], None).await.unwrap();
    let owner = world.operator(&["revoke"], Some(&mine.owner)).await.unwrap();

    let refused = nobody.revoke(owned_by(&mine.owner)).await.unwrap_err();
    assert_eq!((reason(&refused).as_str(), refused.code()), ("NOT_ALLOWED", tonic::Code::PermissionDenied));
    let metadata = tonic_types::StatusExt::get_details_error_info(&refused).unwrap().metadata;
    let named: Vec<_> = ["verb", "resource", "name"].iter().map(|part| metadata[*part].as_str()).collect();
    assert_eq!(named, ["revoke", "owners", &mine.owner], "it names the right to grant");
    assert_eq!(reason(&reader.revoke(owned_by(&mine.owner)).await.unwrap_err()), "NOT_ALLOWED");
    let too_wide = [
        owned_by(&theirs.owner),
        v1::Selector { lease: ids[1].clone(), ..none() },
        v1::Selector { namespace: mine.namespace.clone(), ..none() },
        v1::Selector { pod: pods[0].uid.clone(), ..none() },
        v1::Selector { target: mine.target.clone(), ..none() },
        v1::Selector { all: true, ..none() },
        // Whether there is such a lease is not for everyone.
        v1::Selector { lease: "01890a5d-ac96-774b-bcce-b302099a8057".to_owned(), ..none() },
    ];
    for selector in too_wide {
        let refused = owner.revoke(selector.clone()).await.unwrap_err();
        assert_eq!(reason(&refused), "NOT_ALLOWED", "{selector:?}");
    }
    let verifiers = [
        world.verifier(&mine.namespace, "gate").await.unwrap(),
        world.verifier(&theirs.namespace, "gate").await.unwrap(),
    ];
    for (verifier, issued) in verifiers.iter().zip(&issued) {
        assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Active);
    }

    owner.revoke(v1::Selector { lease: ids[0].clone(), ..none() }).await.unwrap();
    assert_eq!(verifiers[0].state(&issued[0].credential).await.unwrap(), v1::LeaseState::Revoked);
    let narrower = v1::Selector { pod: pods[0].uid.clone(), ..owned_by(&mine.owner) };
    let again = pods[0].issue(&mine.target).await.unwrap();
    owner.revoke(narrower).await.unwrap();
    assert_eq!(verifiers[0].state(&again.credential).await.unwrap(), v1::LeaseState::Revoked);
    assert_eq!(verifiers[1].state(&issued[1].credential).await.unwrap(), v1::LeaseState::Active);
}

async fn a_repeated_revocation_is_the_same(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    pod.issue(&team.target).await.unwrap();
    let operator = world.operator(&["revoke"], Some(&team.owner)).await.unwrap();
    let request = v1::RevokeRequest {
        idempotency_key: "incident-7".to_owned(),
        ..revocation(owned_by(&team.owner), v1::After::Reissue)
    };
    let first = operator.ask(request.clone()).await.unwrap();
    let between = pod.issue(&team.target).await.unwrap();
    let again = operator.ask(request.clone()).await.unwrap();
    assert_eq!((first.repeated, again.repeated), (false, true));
    assert_eq!(first.rule, again.rule);
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    assert_eq!(verifier.state(&between.credential).await.unwrap(), v1::LeaseState::Active);
    let changed = v1::RevokeRequest { reason: "something else".to_owned(), ..request.clone() };
    assert_eq!(reason(&operator.ask(changed).await.unwrap_err()), "IDEMPOTENCY_KEY_REUSED");
    // The key is the operator's own.
    let other = world.operator(&["revoke"], Some(&team.owner)).await.unwrap();
    assert!(!other.ask(request).await.unwrap().repeated);
}

async fn a_revocation_that_says_too_little_is_refused(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let admin = world.admin().await.unwrap();
    let good = revocation(owned_by(&team.owner), v1::After::Reissue);
    let none = v1::Selector::default;
    let selecting = |selector| v1::RevokeRequest { selector: Some(selector), ..good.clone() };
    let wrong = [
        ("SELECTOR_EMPTY", "no selector", v1::RevokeRequest { selector: None, ..good.clone() }),
        ("SELECTOR_EMPTY", "an empty one", selecting(none())),
        ("AFTER_MISSING", "no after", v1::RevokeRequest { after: 0, ..good.clone() }),
        ("AFTER_MISSING INVALID_FIELD", "an unknown after", v1::RevokeRequest { after: 77, ..good.clone() }),
        ("INVALID_FIELD", "no reason", v1::RevokeRequest { reason: String::new(), ..good.clone() }),
        ("INVALID_FIELD", "a long reason", v1::RevokeRequest { reason: "x".repeat(513), ..good.clone() }),
        ("INVALID_FIELD", "two lines", v1::RevokeRequest { reason: "a\nb".to_owned(), ..good.clone() }),
        (
            "INVALID_FIELD",
            "a long key",
            v1::RevokeRequest { idempotency_key: "k".repeat(65), ..good.clone() },
        ),
        ("INVALID_FIELD", "a wrong owner", selecting(owned_by("Not A Name"))),
        ("INVALID_FIELD", "a wrong lease", selecting(v1::Selector { lease: "x".to_owned(), ..none() })),
        ("INVALID_FIELD", "a name alone", selecting(v1::Selector { pod: "api-1".to_owned(), ..none() })),
        (
            "INVALID_FIELD",
            "an image by its name",
            selecting(v1::Selector { image_digest: "registry.k8s.io/pause:3".to_owned(), ..none() }),
        ),
        (
            "NOT_FOUND",
            "a pod that is not there",
            selecting(v1::Selector { pod: "gone".to_owned(), namespace: team.namespace.clone(), ..none() }),
        ),
    ];
    for (expected, what, request) in wrong {
        let refused = admin.ask(request).await.unwrap_err();
        assert!(expected.split(' ').any(|expected| expected == reason(&refused)), "{what}: {refused:?}");
    }
}

async fn a_lifted_hold_lets_new_ones_through_and_what_it_ended_stays_ended(kind: Kind) {
    let world = World::with_own_broker(kind, Options::default()).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let before = pod.issue(&team.target).await.unwrap();
    let operator = world.operator(&["revoke", "get"], Some(&team.owner)).await.unwrap();
    let lifter = world.operator(&["lift"], Some(&team.owner)).await.unwrap();
    let hold = operator.hold(owned_by(&team.owner)).await.unwrap();
    assert_eq!(hold.authority(), v1::Authority::Owners);
    assert_eq!(reason(&pod.is_denied(&team.target).await.unwrap()), "HELD");

    assert_eq!(reason(&operator.lift(&hold.id).await.unwrap_err()), "NOT_ALLOWED");
    let lifted = lifter.lift(&hold.id).await.unwrap();
    assert!(lifted.can_reissue && !lifted.repeated);
    let told = lifted.rule.clone().unwrap().lifted.unwrap();
    assert!(told.position > hold.position && told.reason == "it is over", "{told:?}");
    let after = pod.issue(&team.target).await.unwrap();
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    assert_eq!(verifier.state(&before.credential).await.unwrap(), v1::LeaseState::Revoked);
    assert_eq!(verifier.state(&after.credential).await.unwrap(), v1::LeaseState::Active);
    let reissue = operator.revoke(owned_by(&team.owner)).await.unwrap();
    let refused = lifter.lift(&reissue.id).await.unwrap_err();
    assert_eq!((reason(&refused).as_str(), refused.code()), ("NOT_A_HOLD", tonic::Code::FailedPrecondition));

    world.broker().restart().await.unwrap();
    let again = lifter.lift(&hold.id).await.unwrap();
    assert!(again.repeated && again.rule == lifted.rule, "{again:?}");
    assert_eq!(operator.revocation(&hold.id).await.unwrap().lifted, Some(told));
    until(async || Ok(pod.ask(asking_for(&team.target)).await?.is_ok())).await.unwrap();
}

async fn a_hold_from_above_is_lifted_from_above(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let above = world.operator(&["revoke"], None).await.unwrap();
    let hold = above.hold(owned_by(&team.owner)).await.unwrap();
    assert_eq!(hold.authority(), v1::Authority::ClusterWide);
    let own = world.operator(&["get", "lift"], Some(&team.owner)).await.unwrap();
    let refused = own.lift(&hold.id).await.unwrap_err();
    assert_eq!(reason(&refused), "NOT_ALLOWED");
    assert!(refused.message().contains("all owners.dayfly.dev"), "{refused:?}");
    assert_eq!(reason(&pod.is_denied(&team.target).await.unwrap()), "HELD");
    let stranger = world.operator(&["get", "lift"], Some("somebody-else")).await.unwrap();
    assert_eq!(reason(&stranger.lift(&hold.id).await.unwrap_err()), "NOT_FOUND");
    world.operator(&["lift"], None).await.unwrap().lift(&hold.id).await.unwrap();
    pod.issue(&team.target).await.unwrap();
}

async fn revocations_are_listed_newest_first_to_those_who_may(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (mine, theirs) = (world.team("payments").await.unwrap(), world.team("orders").await.unwrap());
    let writer = world.operator(&["revoke"], None).await.unwrap();
    let reader = world.operator(&["list"], Some(&mine.owner)).await.unwrap();
    let mut written = Vec::new();
    for n in 0..5 {
        let rule = match n {
            1 => writer.hold(owned_by(&mine.owner)).await.unwrap(),
            _ => writer.revoke(owned_by(&mine.owner)).await.unwrap(),
        };
        written.push(rule.id);
        writer.revoke(owned_by(&theirs.owner)).await.unwrap();
    }
    written.reverse();
    let of_mine =
        v1::ListRevocationsRequest { owner: mine.owner.clone(), page_size: 2, ..Default::default() };
    let (mut request, mut listed) = (of_mine.clone(), Vec::new());
    loop {
        let page = reader.revocations(request.clone()).await.unwrap();
        assert!(page.rules.len() <= 2);
        listed.extend(page.rules.into_iter().map(|rule| rule.id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(listed, written);
    let holds = v1::ListRevocationsRequest { holds_only: true, in_force_only: true, ..of_mine.clone() };
    let holds = reader.revocations(holds).await.unwrap().rules;
    assert_eq!(holds.into_iter().map(|rule| rule.id).collect::<Vec<_>>(), written[3..4]);
    let theirs = v1::ListRevocationsRequest { owner: theirs.owner.clone(), ..of_mine.clone() };
    assert_eq!(reason(&reader.revocations(theirs).await.unwrap_err()), "NOT_ALLOWED");
    let wrong = v1::ListRevocationsRequest { page_token: "bGVhc2VzOjE6eA".to_owned(), ..of_mine };
    assert_eq!(reason(&reader.revocations(wrong).await.unwrap_err()), "PAGE_TOKEN");
}

async fn what_a_revocation_ended_is_counted_also_after_a_restart(kind: Kind) {
    let world = World::with_own_broker(kind, Options::default()).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    for _ in 0..3 {
        pod.issue(&team.target).await.unwrap();
    }
    let operator = world.operator(&["revoke", "get"], Some(&team.owner)).await.unwrap();
    let (first, second) = (
        operator.revoke(owned_by(&team.owner)).await.unwrap(),
        operator.revoke(owned_by(&team.owner)).await.unwrap(),
    );
    for restarted in [false, true] {
        for (rule, leases) in [(&first, 3), (&second, 0)] {
            let mut counts = v1::LiveCounts::default();
            until(async || {
                counts = operator.revocation_and_counts(&rule.id).await?.counts.unwrap_or_default();
                Ok(counts.state() == v1::CountState::Counted)
            })
            .await
            .unwrap();
            assert_eq!(counts.leases, leases, "restarted: {restarted}");
            let told: Vec<_> =
                counts.by_owner_and_target.iter().map(|c| (&c.owner, &c.target, c.leases)).collect();
            let expected = [(&team.owner, &team.target, leases)];
            assert_eq!(told, expected[..usize::from(leases > 0)]);
        }
        if !restarted {
            world.broker().restart().await.unwrap();
        }
    }
}

async fn an_answer_to_a_revocation_says_what_an_operator_needs_at_once(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let lease = pod.issue(&team.target).await.unwrap().lease.unwrap();
    let operator = world.operator(&["revoke"], Some(&team.owner)).await.unwrap();
    let answer = operator.ask(revocation(owned_by(&team.owner), v1::After::Reissue)).await.unwrap();
    let rule = answer.rule.unwrap();
    assert!(answer.can_reissue && rule.position > 0 && rule.cut_off >= lease.id);
    assert!(rule.until.unwrap().seconds > lease.expires_at.unwrap().seconds, "its expiry and the leeway");
}
