//! A thousand verifiers on one broker: each hears of a revocation at once.
#![expect(clippy::panic, reason = "tests")]

use std::time::Duration;

use dayfly_api::v1;
use dayfly_e2e::broker::Options;
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::run::run_for;
use dayfly_e2e::world::{World, owned_by};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tonic::Streaming;

const STREAMS: u64 = 1000;
/// As many as go over one connection, and the connection's other calls.
const OF_A_CONNECTION: u64 = 90;
const RULES: usize = 5;
/// Five times what the benchmark aims at: this is a debug build on a busy machine.
const P99: Duration = Duration::from_millis(500);

#[test]
fn a_revocation_reaches_a_thousand_verifiers_at_once() {
    run_for(Duration::from_secs(120), async {
        let limits = [
            ("streams_of_one_verifier", STREAMS),
            ("calls_of_one_pod", STREAMS),
            ("calls_of_one_caller", STREAMS),
        ];
        let options = Options { limits: limits.into(), ..Options::default() };
        let world = World::with_own_broker(Kind::StandIn, options).await.unwrap();
        let team = world.team("payments").await.unwrap();
        let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
        let (tell, mut told) = mpsc::unbounded_channel();
        let mut streams = tokio::task::JoinSet::new();
        for first in (0..STREAMS).step_by(usize::try_from(OF_A_CONNECTION).unwrap()) {
            let channel = world.broker().another_channel().unwrap();
            for _ in first..STREAMS.min(first + OF_A_CONNECTION) {
                let mut news = verifier.watch_by(channel.clone(), "").await.unwrap();
                assert!(!news.message().await.unwrap().unwrap().more);
                let tell = tell.clone();
                streams.spawn(async move { follow(&mut news, &tell).await });
            }
        }
        let admin = world.admin().await.unwrap();
        let mut took = Vec::new();
        for _ in 0..RULES {
            let asked = Instant::now();
            let rule = admin.revoke(owned_by(&team.owner)).await.unwrap();
            for _ in 0..STREAMS {
                let (id, at) = timeout(Duration::from_secs(30), told.recv()).await.unwrap().unwrap();
                assert_eq!(id, rule.id, "each hears each rule once");
                took.push(at - asked);
            }
        }
        took.sort();
        let at = |percent: usize| took[took.len() * percent / 100 - 1];
        println!("{STREAMS} verifiers were told: p50 {:?}, p99 {:?}, last {:?}", at(50), at(99), at(100));
        assert!(at(99) <= P99, "p99 {:?}", at(99));
        streams.shutdown().await;
    });
}

/// Tells of each rule that it is told.
async fn follow(
    news: &mut Streaming<v1::WatchRevocationsResponse>,
    tell: &mpsc::UnboundedSender<(String, Instant)>,
) {
    while let Some(message) = news.message().await.unwrap_or_else(|status| panic!("{status:?}")) {
        let at = Instant::now();
        for rule in message.rules {
            // Nobody listens any more at the end.
            if tell.send((rule.id, at)).is_err() {
                return;
            }
        }
    }
}
