//! A selector from the wire: names and uids told apart.

use std::str::FromStr;

use dayfly_api::rejection::Rejection;
use dayfly_api::v1;
use dayfly_api::v1::ErrorReason;
use dayfly_broker::{Named, Which};
use dayfly_core::ids::Uid;
use dayfly_core::rule::Fields;
use tonic::Status;

use super::reject;

/// Which leases a selector of the API means.
pub(super) fn which(wire: &v1::Selector) -> Result<Which, Status> {
    let fields_set = *wire != v1::Selector { all: wire.all, ..v1::Selector::default() };
    match (wire.all, fields_set) {
        (true, true) => {
            Err(reject::field("selector.all", &"goes alone: leave it out, or leave out the rest"))
        }
        (true, false) => Ok(Which::All),
        (false, false) => {
            let message = "the selector is empty: name at least one field, or say `all`";
            Err(Rejection::new(ErrorReason::SelectorEmpty, message).with("field", "selector").into_status())
        }
        (false, true) => named(wire).map(|named| Which::Where(Box::new(named))),
    }
}

fn named(wire: &v1::Selector) -> Result<Named, Status> {
    let (service_account, service_account_name) =
        uid_or_name("selector.service_account", &wire.service_account)?;
    let (pod, pod_name) = uid_or_name("selector.pod", &wire.pod)?;
    let fields = Fields {
        cluster: optional("selector.cluster", &wire.cluster)?,
        owner: optional("selector.owner", &wire.owner)?,
        namespace: optional("selector.namespace", &wire.namespace)?,
        service_account,
        pod,
        node: optional("selector.node_uid", &wire.node_uid)?,
        grant: optional("selector.grant", &wire.grant)?,
        target: optional("selector.target", &wire.target)?,
        key: optional("selector.key_id", &wire.key_id)?,
        credential_id: optional("selector.credential_id", &wire.credential_id)?,
        lease: optional("selector.lease", &wire.lease)?,
        image: optional("selector.image_digest", &wire.image_digest)?,
    };
    Ok(Named { fields, service_account: service_account_name, pod: pod_name })
}

/// A uid where the text is one, else a name. (A UUID is a valid name too; as one it can only be given by its uid.)
fn uid_or_name<T: FromStr<Err: std::fmt::Display>>(
    field: &'static str,
    text: &str,
) -> Result<(Option<Uid>, Option<T>), Status> {
    match text.parse() {
        Ok(uid) => Ok((Some(uid), None)),
        Err(_) => Ok((None, optional(field, text)?)),
    }
}

fn optional<T: FromStr<Err: std::fmt::Display>>(
    field: &'static str,
    text: &str,
) -> Result<Option<T>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| reject::field(field, &error))
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt as _;

    use super::*;

    fn reason(wire: &v1::Selector) -> Option<String> {
        which(wire).err().and_then(|status| status.get_details_error_info()).map(|info| info.reason)
    }

    #[test]
    fn all_is_explicit_and_alone() {
        assert_eq!(reason(&v1::Selector::default()).unwrap(), "SELECTOR_EMPTY");
        assert_eq!(which(&v1::Selector { all: true, ..v1::Selector::default() }).ok(), Some(Which::All));
        let both = v1::Selector { all: true, owner: "payments".to_owned(), ..v1::Selector::default() };
        assert_eq!(reason(&both).unwrap(), "INVALID_FIELD");
    }

    #[test]
    fn uids_and_names_are_told_apart() {
        let by = |pod: &str| v1::Selector {
            pod: pod.to_owned(),
            namespace: "shop".to_owned(),
            ..v1::Selector::default()
        };
        let Ok(Which::Where(named)) = which(&by("api-0")) else { panic!("a name") };
        assert_eq!((named.pod.is_some(), named.fields.pod), (true, None));
        let Ok(Which::Where(named)) = which(&by("0192f0c1-5d0e-7a39-8b1d-2f6a1c9e4b70")) else {
            panic!("a uid")
        };
        assert_eq!((named.pod.is_some(), named.fields.pod.is_some()), (false, true));
        assert_eq!(reason(&by("Not A Pod")).unwrap(), "INVALID_FIELD");
    }
}
