//! The stand-in, as kube's own client and types see it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests, and what they share")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dayfly_core::ports::TestClock;
use dayfly_core::time::Timestamp;
use dayfly_dev::{StandIn, StandInError};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Status;
use kube::{Api, Client, Config};

mod objects;
mod tokens;
mod watches;

const AUDIENCE: &str = "dayfly";
const PATIENCE: Duration = Duration::from_secs(20);

/// A stand-in with namespace `shop`, service account `cart` and its pod `cart-0`.
struct Shop {
    stand_in: StandIn,
    clock: Arc<TestClock>,
    client: Client,
    account_uid: String,
    pod_uid: String,
}

impl Shop {
    async fn open() -> Self {
        let clock = Arc::new(TestClock::at(Timestamp::from_secs(1_795_435_200)));
        let stand_in = StandIn::start(loopback(), clock.clone()).await.unwrap();
        stand_in.create_namespace("shop").unwrap();
        let account_uid = stand_in.create_service_account("shop", "cart").unwrap();
        let pod_uid = stand_in.create_pod("shop", "cart-0", "cart").unwrap();
        let client = client(&stand_in.url(), stand_in.admin_token());
        Self { stand_in, clock, client, account_uid, pod_uid }
    }

    fn token(&self) -> String {
        self.stand_in.token("shop", "cart", AUDIENCE, Some(("cart-0", &self.pod_uid)), 600).unwrap()
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "shop")
    }

    async fn review(&self, token: &str, audience: &str) -> TokenReviewStatus {
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![audience.to_owned()]) },
            ..TokenReview::default()
        };
        let reviews = Api::<TokenReview>::all(self.client.clone());
        reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap()
    }

    async fn refused_for(&self, token: &str) -> String {
        let status = self.review(token, AUDIENCE).await;
        assert_eq!(status.authenticated, Some(false));
        assert!(status.user.is_none_or(|user| user.username.is_none()));
        status.error.unwrap()
    }
}

#[tokio::test]
async fn listens_on_loopback_only() {
    let clock = Arc::new(TestClock::at(Timestamp::from_secs(1)));
    for addr in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let started = StandIn::start(addr.parse().unwrap(), clock.clone()).await;
        assert!(matches!(started, Err(StandInError::NotLoopback(_))), "{addr}");
    }
}

#[tokio::test]
async fn a_caller_without_its_token_is_unauthorized() {
    let shop = Shop::open().await;
    for token in ["nonsense", &shop.token()] {
        let stranger = client(&shop.stand_in.url(), token);
        let refused = Api::<Pod>::all(stranger.clone()).list(&ListParams::default()).await;
        assert_eq!(status(refused).code, 401);
        assert!(stranger.apiserver_version().await.is_ok());
    }
    let broker = client(&shop.stand_in.url(), shop.stand_in.broker_token());
    assert_eq!(Api::<Pod>::all(broker).list(&ListParams::default()).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn its_kubeconfig_opens_it() {
    let shop = Shop::open().await;
    let dir = tempfile::tempdir().unwrap();
    for path in
        [shop.stand_in.kubeconfig(dir.path()).unwrap(), shop.stand_in.broker_kubeconfig(dir.path()).unwrap()]
    {
        let kubeconfig = Kubeconfig::read_from(path).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let client = Client::try_from(config).unwrap();
        assert!(Api::<Namespace>::all(client).get("shop").await.is_ok());
    }
}

fn client(url: &str, token: &str) -> Client {
    let mut config = Config::new(url.parse().unwrap());
    config.auth_info.token = Some(token.to_owned().into());
    Client::try_from(config).unwrap()
}

fn status<T>(result: kube::Result<T>) -> Box<Status> {
    match result {
        Err(kube::Error::Api(status)) => status,
        Err(other) => panic!("not a refusal: {other}"),
        Ok(_) => panic!("not refused"),
    }
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}
