//! Revocations told to many verifiers: how long from the call of `Revoke` until each stream has the rule.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use dayfly_api::v1::operator_service_client::OperatorServiceClient;
use dayfly_api::v1::verifier_service_client::VerifierServiceClient;
use dayfly_api::v1::{After, RevokeRequest, Selector, WatchRevocationsRequest, WatchRevocationsResponse};
use dayfly_core::clock::SystemClock;
use dayfly_core::ports::Clock as _;
use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use crate::load::{Cost, Row};
use crate::procfs::CpuTimes;
use crate::world::World;
use crate::{calls, number};

/// Verifiers that watch.
pub(crate) const STREAMS: usize = 1000;
/// Streams that go over one connection.
const OF_A_CONNECTION: usize = 50;
/// Connections for all of them.
pub(crate) const CONNECTIONS: usize = STREAMS / OF_A_CONNECTION;
/// Revocations, one after the other.
const RULES: u64 = 100;
/// How long one may take to reach all.
const PATIENCE: Duration = Duration::from_secs(30);

/// What each stream hears: a rule's id, and when, by the run's clock.
type Heard = (String, Duration);

/// Revokes, again and again, what there is none of, over the first of the channels; the others have the streams.
pub(crate) async fn fanout(
    channels: Vec<Channel>,
    world: &World,
    server: u32,
) -> anyhow::Result<(Row, Cost)> {
    let clock = Arc::new(SystemClock::new());
    let verifier = calls::bearer(&world.verifier_token)?;
    let (tell, mut heard) = mpsc::unbounded_channel();
    let mut streams = JoinSet::new();
    let mut operator = None;
    for channel in channels {
        for _ in 0..OF_A_CONNECTION {
            let mut request = Request::new(WatchRevocationsRequest::default());
            request.metadata_mut().insert("authorization", verifier.clone());
            let watching = VerifierServiceClient::new(channel.clone()).watch_revocations(request).await;
            let mut news = watching.context("WatchRevocations was refused")?.into_inner();
            while news.message().await?.context("the stream ended")?.more {}
            streams.spawn(follow(news, tell.clone(), Arc::clone(&clock)));
        }
        operator.get_or_insert(OperatorServiceClient::new(channel));
    }
    let mut operator = operator.context("there is no connection")?;
    let bearer = calls::bearer(&world.operator_token)?;
    let mut latencies = Histogram::new(3)?;
    let (client, other, began) = (CpuTimes::own()?, CpuTimes::of_process(server)?, clock.monotonic());
    for number in 0..RULES {
        let mut request = Request::new(revocation(number));
        request.metadata_mut().insert("authorization", bearer.clone());
        let asked = clock.monotonic();
        let rule = operator.revoke(request).await.context("Revoke was refused")?.into_inner().rule;
        let rule = rule.context("Revoke answered without a rule")?.id;
        for _ in 0..STREAMS {
            let next = tokio::time::timeout(PATIENCE, heard.recv()).await;
            let (id, at) = next.context("a stream is silent")?.context("the streams have ended")?;
            anyhow::ensure!(id == rule, "a stream heard of {id}, not of {rule}");
            latencies.record(number::nanos(at.saturating_sub(asked)))?;
        }
    }
    let took = clock.monotonic().saturating_sub(began);
    let (client, other) = (CpuTimes::own()?.since(&client), CpuTimes::of_process(server)?.since(&other));
    streams.shutdown().await;
    Ok((Row::new(&latencies, took), Cost::new(latencies.len(), took, &client, &other)))
}

async fn follow(
    mut news: Streaming<WatchRevocationsResponse>,
    tell: mpsc::UnboundedSender<Heard>,
    clock: Arc<SystemClock>,
) {
    // One that breaks off is noticed by who counts what is heard.
    while let Ok(Some(message)) = news.message().await {
        let at = clock.monotonic();
        for rule in message.rules {
            if tell.send((rule.id, at)).is_err() {
                return;
            }
        }
    }
}

/// Of a pod that is none.
fn revocation(number: u64) -> RevokeRequest {
    let pod = format!("0192f0c1-5d0e-7a39-8b1d-{number:012x}");
    RevokeRequest {
        selector: Some(Selector { pod, ..Selector::default() }),
        after: After::Reissue.into(),
        reason: "a benchmark".to_owned(),
        ..RevokeRequest::default()
    }
}
