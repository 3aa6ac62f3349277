//! The gRPC services: wire in, one use case, wire out.

mod backup;
pub(crate) mod caller;
mod events;
mod explain;
mod keys;
mod operator;
mod page;
pub(crate) mod reject;
mod selector;
mod stream;
mod verifier;
mod workload;

use std::sync::Arc;

use anyhow::Context as _;
use dayfly_api::v1::operator_service_server::OperatorServiceServer;
use dayfly_api::v1::verifier_service_server::VerifierServiceServer;
use dayfly_api::v1::workload_service_server::WorkloadServiceServer;
use dayfly_api::{Thumbprints, v1};
use dayfly_broker::Broker;
use dayfly_core::ids::Incarnation;
use dayfly_core::lease::Confirmation;
use dayfly_core::limits;
use dayfly_core::ports::Signer;
use tokio::sync::watch;
use tonic::Status;
use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};

use crate::backup::Backups;

pub(crate) use caller::{Caller, SocketPeer};
pub(crate) use operator::to_revoke;
pub(crate) use stream::{stopping, too_slow};

/// What a request binds its credential to.
fn confirmation(wire: Option<&v1::Confirmation>) -> Result<Option<Confirmation>, Status> {
    let thumbprints = Thumbprints {
        jwk: |json| dayfly_jose::jwk_thumbprint(json).map_err(|bad| bad.to_string()),
        certificate: |content| dayfly_jose::certificate_thumbprint(content).map_err(|bad| bad.to_string()),
    };
    dayfly_api::confirmation(wire, thumbprints).map_err(|bad| reject::bad_field(&bad))
}

/// What the broker's own socket serves: see [`SocketPeer`].
pub(crate) fn socket_routes(
    broker: &Arc<Broker>,
    incarnation: Incarnation,
    backups: &Backups,
    stopped: &watch::Receiver<bool>,
) -> Routes {
    let operator =
        operator::Operators::new(Arc::clone(broker), incarnation, backups.clone(), stopped.clone());
    let operator = OperatorServiceServer::new(operator).max_decoding_message_size(limits::MESSAGE_BYTES);
    let other = || async { caller::not_by_the_socket().into_http::<axum::body::Body>() };
    Routes::from(Routes::new(operator).into_axum_router().fallback(other))
}

/// All services of the API, health (grpc.health.v1) and reflection. Streams end when `stopped` says so.
pub(crate) fn routes(
    broker: &Arc<Broker>,
    signer: &Arc<dyn Signer>,
    issuer: &str,
    incarnation: Incarnation,
    backups: &Backups,
    health: HealthServer<impl Health>,
    stopped: &watch::Receiver<bool>,
) -> anyhow::Result<Routes> {
    let workload = workload::Workloads::new(Arc::clone(broker), stopped.clone());
    let verifier =
        verifier::Verifiers::new(Arc::clone(broker), Arc::clone(signer), issuer.to_owned(), stopped.clone());
    let operator =
        operator::Operators::new(Arc::clone(broker), incarnation, backups.clone(), stopped.clone());
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(dayfly_api::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .context("the descriptors of the API do not read")?;
    let mut routes = Routes::builder();
    routes
        .add_service(WorkloadServiceServer::new(workload).max_decoding_message_size(limits::MESSAGE_BYTES))
        .add_service(VerifierServiceServer::new(verifier).max_decoding_message_size(limits::MESSAGE_BYTES))
        .add_service(OperatorServiceServer::new(operator).max_decoding_message_size(limits::MESSAGE_BYTES))
        .add_service(health)
        .add_service(reflection);
    Ok(routes.routes())
}
