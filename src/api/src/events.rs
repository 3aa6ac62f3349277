//! Events of the audit log, core to wire.

use dayfly_core::audit::{Detail, Event, EventRecord};
use dayfly_core::ids::{LeaseId, Position};
use dayfly_core::merkle;
use dayfly_core::time::Timestamp;

use crate::convert::timestamp;
use crate::v1;

/// An event.
pub fn event(event: &Event) -> v1::Event {
    v1::Event {
        position: event.position.number(),
        at: Some(timestamp(event.at)),
        kind: event.kind.name().to_owned(),
        subject: event.subject.map(|id| LeaseId::from_bytes(id).to_string()).unwrap_or_default(),
        detail: event.detail.as_ref().map(detail),
        leaf_hash: event.leaf_hash.to_vec(),
    }
}

fn detail(detail: &Detail) -> v1::EventDetail {
    let time = |millis| (millis > 0).then(|| timestamp(Timestamp::from_millis(millis)));
    let detail = detail.clone();
    v1::EventDetail {
        workload: detail.workload,
        service_account_uid: detail.service_account_uid,
        pod: detail.pod,
        credential_id: detail.credential_id,
        owners: detail.owners,
        target: detail.target,
        grant: detail.grant,
        scope: detail.scope,
        expires_at: time(detail.expires_at_secs.saturating_mul(1000)),
        key_id: detail.key_id,
        credential_digest: detail.credential_digest,
        actor: detail.actor,
        selector: detail.selector,
        after: detail.after,
        cut_off: detail.cut_off,
        reason: detail.reason,
        count: detail.count,
        first: time(detail.first_millis),
        last: time(detail.last_millis),
        note: detail.note,
        renews: detail.renews,
        cluster: detail.cluster,
        rpc: detail.rpc,
        filter: detail.filter,
        objects: detail.objects,
        user_uid: detail.user_uid,
        groups: detail.groups,
        extra: detail.extra,
        audit_id: detail.audit_id,
    }
}

/// A record of the log at this position, as it is kept.
pub fn event_record(position: Position, record: EventRecord) -> v1::EventRecord {
    v1::EventRecord {
        position: position.number(),
        leaf_hash: merkle::leaf_hash(&record.leaf).to_vec(),
        leaf: record.leaf,
        salt: record.salt,
        detail: record.detail,
    }
}

#[cfg(test)]
mod tests {
    use dayfly_core::audit::{Draft, SALT_BYTES};
    use dayfly_core::lease::Lease;

    use super::*;

    #[test]
    fn an_event_says_what_its_record_says() {
        let lease = Lease::test(7).owned_by("payments");
        let at = Timestamp::from_millis(1_795_435_200_250);
        let (record, hash) = Draft::issued(&lease).place(Position::new(3), at, [9; SALT_BYTES]);
        let told = event(&record.read().unwrap());
        assert_eq!((told.position, told.kind.as_str()), (3, "issued"));
        assert_eq!(told.subject, lease.id.to_string());
        assert_eq!(told.at.unwrap().nanos, 250_000_000);
        assert_eq!(told.leaf_hash, hash.to_vec());
        let said = told.detail.unwrap();
        assert_eq!(said.owners, ["payments"]);
        assert_eq!(said.expires_at, Some(timestamp(lease.expires_at)));
        assert_eq!((said.count, said.first), (0, None));
        let raw = event_record(Position::new(3), record.clone());
        assert_eq!((raw.leaf, raw.leaf_hash), (record.leaf, told.leaf_hash));
    }
}
