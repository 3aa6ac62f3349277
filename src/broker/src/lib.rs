//! The use cases: issue, introspect, revoke, list.
