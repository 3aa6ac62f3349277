//! Several clusters with the same names in them: the cluster is the first part of every identity.

use dayfly_broker::{
    About, Bearer, Caller, Error, IssueRequest, Issued, ListLeases, Reason, RevokeRequest, Revoked, Which,
};
use dayfly_core::ids::ClusterName;
use dayfly_core::lease::LeaseState;
use dayfly_core::ports::LeaseStore as _;
use dayfly_core::rule::{After, Fields};
use dayfly_core::secret::Secret;

use crate::support::{World, orders, refused, secret};

/// `east` and `west` have one issuer, the same policy, and the same names and uids; `north` has another issuer.
fn twins() -> World {
    World::with(&[("east", "default"), ("west", "default"), ("north", "north")])
}

fn api() -> Secret {
    secret("default/dayfly/system:serviceaccount:payments:api/api-0")
}

async fn issue(world: &World, token: &Secret, cluster: Option<&str>) -> Result<Issued, Error> {
    let cluster: Option<ClusterName> = cluster.map(|name| name.parse().unwrap());
    let bearer = Bearer { token, cluster: cluster.as_ref(), verified: None };
    let request = IssueRequest { idempotency_key: Some("deploy-7".to_owned()), ..orders() };
    world.broker.issue(bearer, &request).await
}

async fn issued(world: &World, cluster: &str) -> Issued {
    issue(world, &api(), Some(cluster)).await.unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test]
async fn a_call_names_one_of_the_clusters_of_its_tokens_issuer_and_no_other() {
    let world = twins();
    let unnamed = refused(issue(&world, &api(), None).await);
    assert_eq!(unnamed.reason(), Reason::InvalidField);
    let told = unnamed.to_string();
    assert!(told.contains("dayfly-cluster") && told.contains("name yours"), "{told}");
    assert!(!told.contains("east") && !told.contains("west") && !told.contains("north"), "{told}");
    for cluster in ["north", "south"] {
        let refused = refused(issue(&world, &api(), Some(cluster)).await);
        assert_eq!(refused.reason(), Reason::TokenIssuerUnknown, "{cluster}");
    }
    let north = secret("north/dayfly/system:serviceaccount:payments:api/api-0");
    assert_eq!(refused(issue(&world, &north, Some("east")).await).reason(), Reason::TokenIssuerUnknown);
    for named in [None, Some("north")] {
        let issued = issue(&world, &north, named).await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(issued.lease.workload.to_string(), "north:payments:api");
    }
    let nowhere = secret("nowhere/dayfly/system:serviceaccount:payments:api/api-0");
    for named in [None, Some("east")] {
        assert_eq!(refused(issue(&world, &nowhere, named).await).reason(), Reason::TokenIssuerUnknown);
    }
}

#[test]
fn what_cannot_be_good_is_known_without_asking_and_nothing_else_is() {
    let world = twins();
    let of_east: ClusterName = "east".parse().unwrap();
    let known = |token: &str, cluster| {
        let token = secret(token);
        let known = world.broker.known(Bearer { token: &token, cluster, verified: None }, Caller::Workload);
        known.map(|known| known.is_some()).map_err(|error| error.reason())
    };
    assert_eq!(known("default/dayfly/api", Some(&of_east)), Ok(false));
    assert_eq!(known("default/dayfly/api", None), Err(Reason::InvalidField));
    assert_eq!(known("nowhere/dayfly/api", None), Err(Reason::TokenIssuerUnknown));
    assert_eq!(known("", None), Err(Reason::TokenMalformed));
}

#[tokio::test]
async fn workloads_of_the_same_names_and_uids_are_apart() {
    let world = twins();
    let (east, west) = (issued(&world, "east").await, issued(&world, "west").await);
    assert_eq!(east.lease.workload.to_string(), "east:payments:api");
    assert_eq!(west.lease.workload.to_string(), "west:payments:api");
    assert_ne!(east.lease.id, west.lease.id, "one idempotency key, of two callers");
    assert_ne!(east.lease.workload.caller(), west.lease.workload.caller());
    assert_eq!(issued(&world, "west").await.lease.id, west.lease.id);
    // What is said of one cluster's pod is not said of the other's.
    world.clusters[0].pod("api-0", |_| None);
    assert_eq!(refused(issue(&world, &api(), Some("east")).await).reason(), Reason::PodGone);
    assert!(issue(&world, &api(), Some("west")).await.is_ok());
}

#[tokio::test]
async fn operators_see_and_revoke_within_their_own_cluster() {
    let world = twins();
    let (east, west) = (issued(&world, "east").await, issued(&world, "west").await);
    for cluster in &world.clusters {
        for verb in ["get", "list", "revoke"] {
            cluster.allow("ada", verb, None);
        }
    }
    let (ada, of_east) = (secret("default/dayfly-operator/ada"), "east".parse().unwrap());
    let ada = Bearer { token: &ada, cluster: Some(&of_east), verified: None };
    let listed = world.broker.list_leases(ada, &ListLeases::default()).await.unwrap();
    let listed: Vec<_> = listed.leases.iter().map(|view| view.lease.id).collect();
    assert_eq!(listed, [east.lease.id]);
    assert_eq!(refused(world.broker.get_lease(ada, west.lease.id).await).reason(), Reason::NotFound);
    let payments = |cluster: Option<&str>| RevokeRequest {
        which: Which::fields(Fields {
            cluster: cluster.map(|name| name.parse().unwrap()),
            namespace: "payments".parse().ok(),
            ..Fields::default()
        }),
        after: After::Hold,
        reason: "a test".to_owned(),
        dry_run: false,
        idempotency_key: None,
    };
    for beyond in [Some("west"), None] {
        let refused = refused(world.broker.revoke(ada, &payments(beyond)).await);
        assert_eq!(refused.reason(), Reason::NotAllowed, "{beyond:?}");
    }
    let written = world.broker.revoke(ada, &payments(Some("east"))).await;
    assert!(matches!(written, Ok(Revoked::Written { .. })));
    let state = |id| {
        let lease = world.store.all().into_iter().find(|lease| lease.id == id).unwrap();
        lease.state(&world.store.rules(), lease.issued_at)
    };
    assert!(matches!(state(east.lease.id), LeaseState::Revoked { .. }));
    assert_eq!(state(west.lease.id), LeaseState::Active);
    assert_eq!(refused(issue(&world, &api(), Some("east")).await).reason(), Reason::Held);
    issued(&world, "west").await;
}

#[tokio::test]
async fn a_token_of_several_clusters_issuer_is_explained_where_its_cluster_is_said() {
    let world = twins();
    world.clusters.iter().for_each(|cluster| cluster.allow("root", "get", None));
    let home = secret("default/dayfly-operator/root");
    let east = "east".parse().unwrap();
    let caller = Bearer { token: &home, cluster: Some(&east), verified: None };
    let explain = async |cluster: Option<&str>| {
        let cluster = cluster.map(|name| name.parse().unwrap());
        world.broker.explain(caller, &About::Token(api(), cluster, orders())).await
    };
    let unsaid = refused(explain(None).await);
    assert_eq!(unsaid.reason(), Reason::InvalidField);
    assert!(unsaid.to_string().contains("cluster"), "{unsaid}");
    assert_eq!(explain(Some("east")).await.unwrap().workload, "east:payments:api pod api-0");
    let of_another_issuer = explain(Some("north")).await.unwrap().told.unwrap();
    assert!(!of_another_issuer.is_granted());
}
