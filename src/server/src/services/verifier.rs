//! `VerifierService`.

use std::sync::Arc;

use dayfly_api::v1;
use dayfly_api::v1::verifier_service_server::VerifierService;
use dayfly_broker::{Broker, CoveredNews, RevocationNews, RevocationWatch};
use dayfly_core::limits;
use dayfly_core::ports::{KeyUse, Signer};
use dayfly_core::secret::Secret;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::page::RevocationsToken;
use super::reject;
use super::stream::{self, Answers, Source};

pub(super) struct Verifiers {
    broker: Arc<Broker>,
    signer: Arc<dyn Signer>,
    issuer: String,
    stopped: watch::Receiver<bool>,
}

impl Verifiers {
    pub(super) fn new(
        broker: Arc<Broker>,
        signer: Arc<dyn Signer>,
        issuer: String,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        Self { broker, signer, issuer, stopped }
    }
}

#[tonic::async_trait]
impl VerifierService for Verifiers {
    async fn introspect(
        &self,
        request: Request<v1::IntrospectRequest>,
    ) -> Result<Response<v1::IntrospectResponse>, Status> {
        let caller = Caller::behind(&request)?;
        let credential = Secret::from(request.into_inner().credential);
        if credential.is_empty() || credential.len() > limits::TOKEN_BYTES {
            return Err(reject::field("credential", &format!("1 to {} bytes", limits::TOKEN_BYTES)));
        }
        let said = self.broker.introspect(caller.bearer(), &credential).await.map_err(reject::status)?;
        Ok(Response::new(v1::IntrospectResponse {
            active: said.active(),
            position: said.position.number(),
            lease: said.known.map(|view| dayfly_api::lease(&view.lease, view.state)),
        }))
    }

    type WatchRevocationsStream = Answers<v1::WatchRevocationsResponse>;

    async fn watch_revocations(
        &self,
        request: Request<v1::WatchRevocationsRequest>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        let caller = Caller::behind(&request)?;
        let resume = RevocationsToken::read(&request.into_inner().resume)?;
        let watch = self.broker.watch_revocations(caller.bearer(), resume).await.map_err(reject::status)?;
        Ok(Response::new(stream::answers(watch, self.stopped.clone(), limits::SLOW_READER)))
    }

    async fn get_keys(
        &self,
        _: Request<v1::GetKeysRequest>,
    ) -> Result<Response<v1::GetKeysResponse>, Status> {
        let jwks = self.signer.jwks(&KeyUse::AccessToken).unwrap_or_default().to_string();
        let bundles = self.signer.trust_domains().into_iter().filter_map(|domain| {
            let trust_domain = domain.to_string();
            let bundle = self.signer.jwks(&KeyUse::Svid(domain))?.to_string();
            Some(v1::SpiffeBundle { trust_domain, bundle })
        });
        let (issuer, bundles) = (self.issuer.clone(), bundles.collect());
        Ok(Response::new(v1::GetKeysResponse { jwks, issuer, bundles }))
    }
}

impl Source for RevocationWatch {
    type Message = v1::WatchRevocationsResponse;

    async fn next(&mut self) -> Result<Vec<Self::Message>, Status> {
        self.next().await.map(|news| vec![message(&news)]).map_err(reject::status)
    }
}

fn message(news: &RevocationNews) -> v1::WatchRevocationsResponse {
    v1::WatchRevocationsResponse {
        position: news.position.number(),
        resume: RevocationsToken::write(&news.resume),
        rules: news.rules.iter().map(|rule| dayfly_api::revocation_rule(rule)).collect(),
        snapshot: news.snapshot,
        more: news.more,
        lifted: news.lifted.iter().map(ToString::to_string).collect(),
        covered: news.covered.iter().map(covered).collect(),
    }
}

fn covered(news: &CoveredNews) -> v1::CoveredLeases {
    v1::CoveredLeases {
        rule: news.rule.to_string(),
        leases: news.leases.iter().map(ToString::to_string).collect(),
        complete: news.complete,
    }
}
