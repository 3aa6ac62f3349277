use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dayfly_broker::{Purpose, Reason};
use dayfly_core::ports::{
    ChainEnd, ControllerChain, NamespaceFacts, PodFacts, PodPhase, ServiceAccountFacts,
};
use dayfly_core::provenance::{Image, Labels, ObjectRef, Provenance};
use dayfly_core::time::Timestamp;
use dayfly_core::workload::Binding;
use dayfly_policy::TopController;

use crate::support::{POLICY, World, api, bearer, orders, refused, secret, uid_of};

fn labels(key: &str, value: &str) -> Arc<Labels> {
    Arc::new(BTreeMap::from([(key.to_owned(), value.to_owned())]))
}

fn object(kind: &str, name: &str) -> ObjectRef {
    ObjectRef {
        api_version: "apps/v1".to_owned(),
        kind: kind.to_owned(),
        namespace: Some("payments".parse().unwrap()),
        name: name.to_owned(),
        uid: Some(uid_of(name)),
    }
}

fn application(name: &str) -> ObjectRef {
    ObjectRef { api_version: "argoproj.io/v1alpha1".to_owned(), uid: None, ..object("Application", name) }
}

/// Pod `api-0`, of a ReplicaSet of a Deployment.
fn controlled(pod: PodFacts) -> PodFacts {
    let image = Image { container: "api".to_owned(), digest: format!("sha256:{}", "a".repeat(64)) };
    PodFacts {
        labels: labels("team", "checkout"),
        controller: Some(Arc::new(object("ReplicaSet", "api-7d"))),
        images: Arc::new([image]),
        applied_by: Some(Arc::new(application("of-pod"))),
        ..pod
    }
}

fn chain(end: ChainEnd, applied_by: Option<ObjectRef>) -> ControllerChain {
    let controllers = vec![object("ReplicaSet", "api-7d"), object("Deployment", "api")];
    ControllerChain { controllers, end, applied_by }
}

fn namespace(deleting: bool) -> NamespaceFacts {
    NamespaceFacts { uid: uid_of("payments"), labels: labels("zone", "a"), deleting }
}

#[tokio::test]
async fn a_lease_has_its_provenance() {
    let world = World::new();
    world.east().pod("api-0", |pod| Some(controlled(pod)));
    world.east().chain(chain(ChainEnd::Top, Some(application("shop"))));
    let lease = world.issued().await.lease;
    let Provenance { controllers, images, images_known, applied_by } = &lease.provenance;
    let names: Vec<_> = controllers.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["ReplicaSet/api-7d", "Deployment/api"]);
    assert_eq!((images.len(), images[0].container.as_str(), *images_known), (1, "api", true));
    assert_eq!(applied_by.as_ref().unwrap().name, "shop", "what applied the top controller");
    assert_eq!(world.store.all()[0].provenance, lease.provenance, "as recorded");

    world.east().chain(chain(ChainEnd::Top, None));
    let lease = world.issued().await.lease;
    assert_eq!(lease.provenance.applied_by.as_ref().unwrap().name, "of-pod", "else the pod itself");
    world.east().pod("api-0", Some);
    let own = Provenance { images_known: true, ..Provenance::default() };
    assert_eq!(world.issued().await.lease.provenance, own, "of a pod of its own");
}

#[tokio::test]
async fn provenance_that_cannot_be_read_is_no_reason_to_refuse() {
    let world = World::new();
    world.east().pod("api-0", |pod| Some(controlled(pod)));
    let lease = world.issued().await.lease;
    assert_eq!((lease.provenance.controllers.len(), lease.provenance.images.len()), (0, 1));
}

/// Whoever is narrowed to an owner, and held or bounded by it, does not lose it to an API server that does not answer.
#[tokio::test]
async fn an_owner_that_depends_on_what_cannot_be_read_is_nobody() {
    let world = World::new();
    world.policy(&POLICY.replace(
        "namespaces: {names: [payments]}}",
        "namespaces: {names: [payments]}, delegates: [{owner: checkout, controllers: [{apiVersion: apps/v1, kind: \
         Deployment, name: api}]}]}",
    ));
    world.east().pod("api-0", |pod| Some(controlled(pod)));
    world.east().chain(chain(ChainEnd::Top, None));
    let narrowed = world.issued().await.lease.owners.narrowed.clone();
    assert_eq!(narrowed.unwrap().as_str(), "checkout");
    for unread in [chain(ChainEnd::Unknown, None), ControllerChain::default()] {
        world.east().chain(unread);
        assert_eq!(world.refusal(&orders()).await.reason(), Reason::ClusterUnavailable);
    }
    let leases = world.store.all().len();
    world.east().chain(chain(ChainEnd::Broken, None));
    assert_eq!(world.issued().await.lease.owners.narrowed, None, "known not to be that one");
    world.east().pod("api-0", Some);
    assert_eq!(world.issued().await.lease.owners.narrowed, None, "a pod of its own");
    assert_eq!(world.store.all().len(), leases + 2);
}

#[tokio::test]
async fn what_policy_may_look_at_is_known() {
    let world = World::new();
    world.east().pod("api-0", |pod| Some(controlled(pod)));
    world.east().namespace("payments", Some(namespace(false)));
    let account = ServiceAccountFacts { uid: uid_of("api"), deleting: false, labels: labels("tier", "1") };
    world.east().account("api", Some(account));
    world.east().chain(chain(ChainEnd::Top, None));
    let attested = world.broker.attested(bearer(&api()), Purpose::New).await.unwrap();
    assert_eq!(attested.pod_labels["team"], "checkout");
    assert_eq!(attested.service_account_labels["tier"], "1");
    assert_eq!(attested.namespace_labels["zone"], "a");
    assert_eq!((attested.binding, attested.terminating_until), (Binding::Pod, None));
    assert!(matches!(attested.top_controller(), TopController::Is(top) if top.name == "api"));
    assert_eq!(attested.workload.node.as_ref().unwrap().name.as_str(), "node-1");

    // What may not be the top is not taken for it, and a pod without controller has none.
    world.east().chain(chain(ChainEnd::Broken, None));
    let attested = world.broker.attested(bearer(&api()), Purpose::New).await.unwrap();
    assert_eq!((attested.top_controller(), attested.provenance.controllers.len()), (TopController::None, 2));
    world.east().chain(chain(ChainEnd::Unknown, None));
    let attested = world.broker.attested(bearer(&api()), Purpose::New).await.unwrap();
    assert_eq!(attested.top_controller(), TopController::Unknown);
    world.east().pod("api-0", Some);
    let attested = world.broker.attested(bearer(&api()), Purpose::New).await.unwrap();
    assert_eq!((attested.controllers_end, attested.top_controller()), (ChainEnd::Top, TopController::None));
}

#[tokio::test]
async fn a_terminating_pod_may_renew_for_its_grace_period() {
    let world = World::new();
    let end = Timestamp::from_secs(1_795_435_230);
    let terminate = |phase| {
        world.east().pod("api-0", |pod| Some(PodFacts { deleting: Some(end), phase, ..controlled(pod) }));
    };
    let token = api();
    let attested = async |purpose| world.broker.attested(bearer(&token), purpose).await;
    terminate(PodPhase::Running);
    assert_eq!(refused(attested(Purpose::New).await).reason(), Reason::PodTerminating);
    assert_eq!(attested(Purpose::Renewal).await.unwrap().terminating_until, Some(end));
    world.clock.advance(Duration::from_secs(29));
    attested(Purpose::Renewal).await.unwrap();
    // The namespace goes first, then what is in it.
    world.east().namespace("payments", Some(namespace(true)));
    attested(Purpose::Renewal).await.unwrap();
    for phase in [PodPhase::Succeeded, PodPhase::Failed] {
        terminate(phase);
        assert_eq!(refused(attested(Purpose::Renewal).await).reason(), Reason::PodFinished);
    }
    terminate(PodPhase::Running);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(refused(attested(Purpose::Renewal).await).reason(), Reason::PodTerminating);
}

#[tokio::test]
async fn a_namespace_that_is_being_deleted_gets_nothing_new() {
    let world = World::new();
    for facts in [Some(namespace(true)), None] {
        world.east().namespace("payments", facts);
        assert_eq!(world.refusal(&orders()).await.reason(), Reason::NamespaceTerminating);
    }
    world.east().namespace("payments", Some(namespace(false)));
    world.issued().await;
}

/// All need the consent of target and grant; the refusal says which it is.
#[tokio::test]
async fn tokens_that_are_bound_to_no_pod_are_told_apart() {
    let world = World::new();
    let unbound = secret("east/dayfly/system:serviceaccount:payments:api");
    let of_node = secret("east/dayfly/system:serviceaccount:payments:api/node:node-1");
    let refusal = async |token| {
        let refused = refused(world.issue(token, &orders()).await);
        assert_eq!(refused.reason(), Reason::TokenUnbound);
        refused.to_string()
    };
    let of_nothing = refusal(&unbound).await;
    assert!(of_nothing.contains("bound to no pod"), "{of_nothing}");
    assert!(refusal(&of_node).await.contains("bound to a node, and to no pod"));
    world.east().of_secret.store(true, Ordering::SeqCst);
    assert!(refusal(&unbound).await.contains("bound to a Secret, and to no pod"));
    let attested = world.broker.attested(bearer(&unbound), Purpose::New).await.unwrap();
    assert_eq!(attested.binding, Binding::Secret);
}
