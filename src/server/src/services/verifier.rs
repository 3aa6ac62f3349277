//! `VerifierService`.

use std::sync::Arc;

use dayfly_api::v1;
use dayfly_api::v1::verifier_service_server::VerifierService;
use dayfly_broker::Broker;
use dayfly_core::limits;
use dayfly_core::ports::{KeyUse, Signer};
use dayfly_core::secret::Secret;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::reject;

pub(super) struct Verifiers {
    broker: Arc<Broker>,
    signer: Arc<dyn Signer>,
    issuer: String,
}

impl Verifiers {
    pub(super) fn new(broker: Arc<Broker>, signer: Arc<dyn Signer>, issuer: String) -> Self {
        Self { broker, signer, issuer }
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
