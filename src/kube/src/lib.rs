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
//! | `controllers` | who controls a pod: ownerReferences, followed up to the top |
//! | `objects` | what is kept of an object (`metadata`, `containers`) |
//! | `informer` | list, watch, relist, and when it last heard anything |
//! | `front_proxy` | by what the API server shows who it is to an aggregated API |
//! | `authorize` | the `Authorizer`: SubjectAccessReview |
//! | `api` | one call to the API server, and what its failures mean |
//!
//! A further kind that is watched is one more of `objects`.

mod affected;
mod api;
mod authorize;
mod cache;
mod cluster;
mod coalesce;
mod config;
mod containers;
mod controllers;
mod directory;
mod front_proxy;
mod informer;
mod keys;
mod lines;
mod local;
mod metadata;
mod namesakes;
mod objects;
mod plurals;
mod review;
mod sharing;
mod sparing;
#[cfg(test)]
mod testing;

pub use cluster::{RunningCluster, check, connect, connect_all};
pub use config::{Access, Audiences, ClusterConfig, ConnectError, Jwks};
pub use front_proxy::{FrontProxy, FrontProxySource};
