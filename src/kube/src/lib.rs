//! The adapter to one Kubernetes cluster: TokenReview, SubjectAccessReview, and trimmed informers.
//!
//! Start at [`connect`]: it takes a [`ClusterConfig`] and gives the [`dayfly_core::ports::Cluster`] that the use cases
//! ask. Behind it, a file each:
//!
//! | file | what |
//! |---|---|
//! | `review` | the `Reviewer`: cache, local check, one TokenReview for all who ask at once |
//! | `local` | what can be said of a token without the API server, but for its keys (`keys`) |
//! | `namesakes` | clusters of one issuer, and that no two have a key in common |
//! | `directory` | the `Directory`: what the informers hold, else one GET |
//! | `informer` | list, watch, relist, and when it last heard anything |
//! | `authorize` | the `Authorizer`: SubjectAccessReview |
//! | `api` | one call to the API server, and what its failures mean |
//!
//! Provenance (ownerReferences) will be one more kind of `objects`, and structured clusters more of [`ClusterConfig`].

mod api;
mod authorize;
mod cache;
mod cluster;
mod coalesce;
mod config;
mod directory;
mod informer;
mod keys;
mod local;
mod namesakes;
mod objects;
mod review;
mod sparing;
#[cfg(test)]
mod testing;

pub use cluster::{RunningCluster, check, connect, connect_all};
pub use config::{Access, Audiences, ClusterConfig, ConnectError};
