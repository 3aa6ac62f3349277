//! Behaviour tests through the public API: the real `dayfly serve`, against a real kube-apiserver and the stand-in.
//!
//! | module | what |
//! |---|---|
//! | [`world`] | start here: a cluster, a broker and its policy, and who acts in them |
//! | [`policy`] | Owners, Targets and Grants as people write them |
//! | [`broker`] | the process `dayfly serve` |
//! | [`cluster`] | a Kubernetes API: real or the stand-in |
//! | [`control_plane`] | the real one |
//! | [`wire`] | a connection that can be cut, or go silent |
//! | [`jwt`] | reads and checks tokens without any of Dayfly's code |
//! | [`forger`] | signs tokens with an attacker's key |
//! | [`run`] | runs a test, and waits for conditions |

pub mod broker;
pub mod cluster;
pub mod control_plane;
mod folder;
pub mod forger;
pub mod jwt;
pub mod policy;
mod process;
pub mod run;
pub mod wire;
pub mod world;
