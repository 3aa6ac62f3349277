//! Behaviour tests through the public API, against a real kube-apiserver and the stand-in.
pub mod control_plane;
