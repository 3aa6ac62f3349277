//! Two clusters with the default issuer and the same names in them: only their keys, and the name that a call gives, tell
//! them apart.

use std::sync::Arc;

use dayfly_api::v1;
use dayfly_e2e::broker::{Broker, CLUSTER, Options};
use dayfly_e2e::cluster::{Cluster, Kind, TOKEN_SECS};
use dayfly_e2e::world::{OPERATOR, WORKLOAD, asking_for, bearing, reason, revocation};
use dayfly_e2e::{control_plane, jwt, policy};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

const OTHER: &str = "west";

type Workloads = v1::workload_service_client::WorkloadServiceClient<Channel>;
type Operators = v1::operator_service_client::OperatorServiceClient<Channel>;

/// A call that names its cluster.
fn of_cluster<T>(cluster: &str, token: &str, message: T) -> Request<T> {
    let mut request = bearing(token, message);
    request.metadata_mut().insert("dayfly-cluster", cluster.parse().unwrap());
    request
}

/// The token of pod `api-0` of `payments/api`, which it makes.
async fn api_0(cluster: &Cluster) -> String {
    cluster.create_namespace("payments").await.unwrap();
    cluster.create_service_account("payments", "api").await.unwrap();
    let uid = cluster.create_pod("payments", "api-0", "api").await.unwrap();
    cluster.token("payments", "api", &[WORKLOAD], Some(("api-0", &uid)), TOKEN_SECS).await.unwrap()
}

/// The token of an operator with all rights.
async fn admin(cluster: &Cluster) -> String {
    cluster.create_namespace("operators").await.unwrap();
    cluster.create_service_account("operators", "admin").await.unwrap();
    cluster.allow("operators", "admin", &["get", "list", "revoke"], None).await.unwrap();
    cluster.token("operators", "admin", &[OPERATOR], None, TOKEN_SECS).await.unwrap()
}

async fn serving(east: &Cluster, west: &Cluster) -> Broker {
    let more_clusters = vec![(OTHER, west.access().await.unwrap())];
    let options = Options { more_clusters, ..Options::default() };
    let broker = Broker::prepare(east.access().await.unwrap(), options).unwrap();
    for cluster in [CLUSTER, OTHER] {
        for object in [
            policy::owner("payments", &["payments"]),
            policy::target("ledger", &["payments"]),
            policy::grant("payments", "api-ledger", "api", "ledger", &["read"]),
        ] {
            broker.put_in(cluster, &object).unwrap();
        }
    }
    broker.launch().await.unwrap();
    broker
}

async fn issue(broker: &Broker, request: Request<v1::IssueRequest>) -> Result<v1::IssueResponse, Status> {
    let issued = Workloads::new(broker.channel()).issue(request).await?.into_inner();
    broker.keep_secret(&issued.credential);
    Ok(issued)
}

/// What was issued to the pod of this cluster, as soon as its pods are known.
async fn issued(broker: &Broker, cluster: &str, token: &str) -> v1::IssueResponse {
    let mut answer = None;
    dayfly_e2e::run::until(async || {
        match issue(broker, of_cluster(cluster, token, asking_for("ledger"))).await {
            Ok(issued) => answer = Some(issued),
            Err(status) if status.code() == Code::Unavailable => {}
            Err(status) => return Err(status.into()),
        }
        Ok(answer.is_some())
    })
    .await
    .unwrap();
    answer.unwrap()
}

#[test]
fn clusters_of_one_issuer_and_the_same_names_are_apart() {
    dayfly_e2e::run::run(async {
        let start = || Cluster::start_real(control_plane::Options::default());
        let (east, west): (Arc<_>, Arc<_>) = tokio::try_join!(start(), start()).unwrap();
        let (of_east, of_west) = (api_0(&east).await, api_0(&west).await);
        let issuer = |token: &str| jwt::read(token).unwrap().claims["iss"].clone();
        assert_eq!(issuer(&of_east), issuer(&of_west));
        let admin = admin(&east).await;
        let broker = serving(&east, &west).await;
        for token in [&of_east, &of_west, &admin] {
            broker.keep_secret(token);
        }

        let mut leases = Vec::new();
        for (cluster, token, other) in [(CLUSTER, &of_east, OTHER), (OTHER, &of_west, CLUSTER)] {
            let issued = issued(&broker, cluster, token).await;
            let claims = jwt::read(&issued.credential).unwrap().claims;
            assert_eq!(claims["sub"], format!("{cluster}:payments:api"));
            let lease = issued.lease.unwrap();
            assert_eq!(lease.workload.as_ref().unwrap().cluster, cluster);
            leases.push(lease.id);
            let refused = issue(&broker, of_cluster(other, token, asking_for("ledger"))).await.unwrap_err();
            assert_eq!(
                (reason(&refused).as_str(), refused.code()),
                ("TOKEN_SIGNATURE", Code::Unauthenticated)
            );
            let unnamed = issue(&broker, bearing(token, asking_for("ledger"))).await.unwrap_err();
            assert_eq!((reason(&unnamed).as_str(), unnamed.code()), ("INVALID_FIELD", Code::InvalidArgument));
            assert!(
                !unnamed.message().contains(CLUSTER) && !unnamed.message().contains(OTHER),
                "{unnamed:?}"
            );
        }
        let elsewhere =
            issue(&broker, of_cluster("north", &of_east, asking_for("ledger"))).await.unwrap_err();
        assert_eq!(reason(&elsewhere), "TOKEN_ISSUER_UNKNOWN");

        let mut operators = Operators::new(broker.channel());
        let of = |cluster: &str| v1::Selector { cluster: cluster.to_owned(), ..v1::Selector::default() };
        for (cluster, lease) in [CLUSTER, OTHER].into_iter().zip(&leases) {
            let request = v1::ListLeasesRequest { selector: Some(of(cluster)), ..Default::default() };
            let page =
                operators.list_leases(of_cluster(CLUSTER, &admin, request)).await.unwrap().into_inner();
            let ids: Vec<_> = page.leases.iter().map(|lease| &lease.id).collect();
            assert_eq!(ids, [lease], "{cluster}");
        }
        // A token is explained as of the cluster that is said; it is no other's.
        for (named, granted) in [(OTHER, true), (CLUSTER, false)] {
            let about = v1::explain_request::About::Token(of_west.clone());
            let asked = v1::AskedFor { target: "ledger".to_owned(), ..Default::default() };
            let request =
                v1::ExplainRequest { about: Some(about), asked: Some(asked), cluster: named.to_owned() };
            let told = operators.explain(of_cluster(CLUSTER, &admin, request)).await.unwrap().into_inner();
            assert_eq!(told.explanation.unwrap().granted, granted, "{named}");
        }
        // Of the same namespace, one cluster's alone.
        let selector = v1::Selector { namespace: "payments".to_owned(), ..of(OTHER) };
        let request = revocation(selector, v1::After::Hold);
        operators.revoke(of_cluster(CLUSTER, &admin, request)).await.unwrap();
        for (id, state) in leases.into_iter().zip([v1::LeaseState::Active, v1::LeaseState::Revoked]) {
            let request = of_cluster(CLUSTER, &admin, v1::GetLeaseRequest { id });
            let lease = operators.get_lease(request).await.unwrap().into_inner().lease.unwrap();
            assert_eq!(lease.state(), state);
        }
        issued(&broker, CLUSTER, &of_east).await;
        let held = issue(&broker, of_cluster(OTHER, &of_west, asking_for("ledger"))).await.unwrap_err();
        assert_eq!(reason(&held), "HELD");
        broker.stop().await.unwrap();
    });
}

#[test]
fn two_names_for_what_signs_with_one_key_are_refused_at_start() {
    dayfly_e2e::run::run(async {
        let cluster = Cluster::shared(Kind::Real).await.unwrap();
        let access = cluster.access().await.unwrap();
        let more_clusters = vec![(OTHER, access.clone())];
        let options = Options { more_clusters, ..Options::default() };
        let mut broker = Broker::prepare(access, options).unwrap();
        let (status, log) = broker.refuses_to_start(&[]).await.unwrap();
        assert!(!status.success());
        assert!(log.contains("the same issuer and a token key in common"), "{log}");
        broker.reconfigure(|options| options.hidden_keys = true).unwrap();
        let (status, log) = broker.refuses_to_start(&[]).await.unwrap();
        assert!(!status.success());
        assert!(log.contains("local_check is off for one of them"), "{log}");
    });
}
