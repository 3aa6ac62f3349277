//! Why: explained to whoever may read the owner, and to a workload its own reason.

use dayfly_api::v1;
use dayfly_api::v1::explain_request::About;
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::world::{Operator, Pod, World, asking_for, bearing, reason};
use tonic::Status;
use tonic_types::StatusExt as _;

on_both!(
    a_denial_is_explained_by_the_id_that_it_was_answered_with,
    a_token_and_a_description_are_explained_alike,
    a_lease_is_explained_and_says_how_policy_has_moved_on,
    a_workload_is_told_its_own_reason_only,
    unowned_namespaces_are_listed,
);

fn asked(target: &str, scope: &[&str]) -> v1::AskedFor {
    let scope = scope.iter().map(|one| (*one).to_owned()).collect();
    v1::AskedFor { target: target.to_owned(), scope, ..Default::default() }
}

async fn explain(
    operator: &Operator,
    about: About,
    asked: Option<v1::AskedFor>,
) -> Result<v1::ExplainResponse, Status> {
    operator.explain(v1::ExplainRequest { about: Some(about), asked, cluster: String::new() }).await
}

async fn own(world: &World, pod: &Pod<'_>, asked: v1::AskedFor) -> v1::Explanation {
    let request = v1::WorkloadServiceExplainRequest { asked: Some(asked) };
    let token = pod.token().await.unwrap();
    let answer = world.workloads().explain(bearing(&token, request)).await.unwrap();
    answer.into_inner().explanation.unwrap()
}

async fn a_denial_is_explained_by_the_id_that_it_was_answered_with(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let wanted = v1::IssueRequest { scope: vec!["admin".to_owned()], ..asking_for(&team.target) };
    let denied = pod.ask(wanted).await.unwrap().unwrap_err();
    let id = denied.get_details_error_info().unwrap().metadata["denial"].clone();
    let reader = world.operator(&["get"], Some(&team.owner)).await.unwrap();
    let answer = explain(&reader, About::Denial(id.clone()), None).await.unwrap();
    let why = answer.explanation.unwrap();
    assert_eq!((why.granted, &why.reason, why.answer.as_str()), (false, &reason(&denied), denied.message()));
    assert!(why.text.starts_with(&format!("denied: {}: {}\n", reason(&denied), denied.message())));
    let last = why.checks.last().unwrap();
    assert_eq!((last.name.as_str(), last.verdict()), ("scope", v1::Verdict::Refused));
    assert!(why.checks.iter().any(|check| check.name == "owner" && check.outcome.contains(&team.owner)));
    assert!(!why.change.is_empty());

    let stranger = world.operator(&["get", "list"], Some("another")).await.unwrap();
    let hidden = explain(&stranger, About::Denial(id), None).await.unwrap_err();
    assert_eq!(reason(&hidden), "NOT_FOUND");
}

async fn a_token_and_a_description_are_explained_alike(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let reader = world.operator(&["get"], Some(&team.owner)).await.unwrap();
    let described = || {
        About::Workload(v1::DescribedWorkload {
            namespace: team.namespace.clone(),
            service_account: "api".to_owned(),
            pod: pod.name.clone(),
            ..Default::default()
        })
    };
    let token = pod.token().await.unwrap();
    for scope in [&[][..], &["admin"]] {
        let wanted = || Some(asked(&team.target, scope));
        let by_token = explain(&reader, About::Token(token.clone()), wanted()).await.unwrap();
        let by_words = explain(&reader, described(), wanted()).await.unwrap();
        assert_eq!(by_token.workload, by_words.workload);
        let (by_token, by_words) = (by_token.explanation.unwrap(), by_words.explanation.unwrap());
        assert_eq!((by_token.granted, &by_token.answer), (scope.is_empty(), &by_words.answer));
        assert_eq!(by_token.objects, by_words.objects);
    }
    let stranger = world.operator(&["get"], Some("another")).await.unwrap();
    for about in [About::Token(token), described()] {
        let hidden = explain(&stranger, about, Some(asked(&team.target, &[]))).await.unwrap_err();
        assert_eq!(reason(&hidden), "NOT_FOUND");
    }
    let nothing = world.admin().await.unwrap().explain(v1::ExplainRequest::default()).await.unwrap_err();
    assert_eq!(reason(&nothing), "INVALID_FIELD");
}

async fn a_lease_is_explained_and_says_how_policy_has_moved_on(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let lease = pod.issue(&team.target).await.unwrap().lease.unwrap();
    assert!(lease.grounds.is_none(), "a workload is not told what decided");
    let reader = world.operator(&["get"], Some(&team.owner)).await.unwrap();
    let told = reader.lease(&lease.id).await.unwrap();
    let kinds: Vec<_> = told.grounds.unwrap().objects.into_iter().map(|object| object.kind).collect();
    assert_eq!(kinds, ["Owner", "Grant", "Target"]);
    let same = explain(&reader, About::Lease(lease.id.clone()), None).await.unwrap();
    assert!(same.moved_on.is_empty() && same.now.unwrap().granted, "{:?}", same.moved_on);

    world.remove(&[&team.grant_object]).await.unwrap();
    let moved = explain(&reader, About::Lease(lease.id), None).await.unwrap();
    assert!(moved.explanation.unwrap().granted, "as it was");
    assert_eq!(moved.now.unwrap().reason, "GRANT_UNKNOWN");
    assert!(moved.moved_on[0].starts_with("Grant ") && moved.moved_on[0].contains("not there any more"));
}

async fn a_workload_is_told_its_own_reason_only(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let yes = own(&world, &pod, asked(&team.target, &[])).await;
    assert!(yes.granted && yes.checks.is_empty() && yes.objects.is_empty());
    let no = own(&world, &pod, asked(&team.target, &["admin"])).await;
    let wanted = v1::IssueRequest { scope: vec!["admin".to_owned()], ..asking_for(&team.target) };
    let denied = pod.ask(wanted).await.unwrap().unwrap_err();
    assert_eq!(no.text, format!("denied: {}: {}\n", reason(&denied), denied.message()));
    assert!(no.change.is_empty() && no.audited.is_empty());
}

async fn unowned_namespaces_are_listed(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let namespace = world.namespace("orphan").await.unwrap();
    let pod = world.pod(&namespace, "api").await.unwrap();
    for _ in 0..2 {
        assert_eq!(reason(&pod.is_denied(&team.target).await.unwrap()), "UNOWNED");
    }
    let admin = world.admin().await.unwrap();
    let all = admin.all_unowned().await.unwrap();
    let found = all.iter().find(|found| found.namespace == namespace).unwrap();
    assert_eq!((found.denied, found.exists, found.contested), (2, true, false));
    assert!(all.iter().all(|found| found.namespace != team.namespace));
    let reader = world.operator(&["list"], Some(&team.owner)).await.unwrap();
    assert_eq!(reason(&reader.all_unowned().await.unwrap_err()), "NOT_ALLOWED");
}
