//! What Dayfly does, through its public API: the real broker, beside a real kube-apiserver and beside the stand-in.
//!
//! Each test is a function that takes a [`Kind`](dayfly_e2e::cluster::Kind) of cluster; `on_both!` makes of it a test in
//! `real` and one in `stand_in`. Tests share a cluster and a broker, and make namespaces, owners and targets of their own;
//! those that kill, fill or reconfigure something start their own.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

/// A test on the real cluster and one on the stand-in, for each function.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod real {
            $(#[test]
            fn $name() {
                dayfly_e2e::run::run(super::$name(dayfly_e2e::cluster::Kind::Real));
            })+
        }
        mod stand_in {
            $(#[test]
            fn $name() {
                dayfly_e2e::run::run(super::$name(dayfly_e2e::cluster::Kind::StandIn));
            })+
        }
    };
}

mod api;
mod attacks;
mod audit;
mod backup;
mod break_glass;
mod caps;
mod clock;
mod clusters;
mod commands;
mod credentials;
mod crowds;
mod events;
mod explain;
mod images;
mod issue;
mod keys;
mod listing;
mod offline;
mod outage;
mod policy;
mod provenance;
mod reconcile;
mod renew;
mod revoke;
mod roles;
mod sessions;
mod status_lists;
mod store;
mod tokens;
mod unwritten;
mod verify;
mod watch;
mod watch_revocations;
mod workloads;
