//! Rules by an image's digest.

use dayfly_core::change::{Issue, Outcome, Revocation};
use dayfly_core::rule::{After, Fields, Selector};

use super::{Harness, drawn, issue, lift, position, revocation, revoke};

/// A hold of an image that is written after a decision sends back what runs the image, and what may; and is as it was after a
/// start.
pub(super) async fn a_hold_of_an_image_outruns_what_may_run_it(harness: &dyn Harness) {
    let [bad, good] = ["a", "b"].map(|letter| format!("sha256:{}", letter.repeat(64)));
    let store = harness.store();
    let decided = |images: Option<&str>| {
        let Issue { lease, decided_under, caps } = drawn(&*store);
        let lease = match images {
            Some(image) => lease.running(&[("api", image)]),
            None => lease,
        };
        Issue { lease, decided_under, caps }
    };
    let (runs_it, runs_another, may_run_it) = (decided(Some(&bad)), decided(Some(&good)), decided(None));
    let again = decided(None);
    let selector = Selector::fields(Fields { image: bad.parse().ok(), ..Fields::default() }).unwrap();
    let hold = revoke(&*store, Revocation { after: After::Hold, ..revocation(selector) }).await;
    let (held, free) = (may_run_it.lease.clone(), runs_another.lease.clone());
    for outrun in [runs_it, may_run_it] {
        assert!(matches!(issue(&*store, outrun).await, Outcome::Covered(rule) if rule.id == hold.id));
    }
    position(&issue(&*store, runs_another).await);

    drop(store);
    let store = harness.reopen();
    assert_eq!(store.rules().get(hold.id), Some(&hold));
    assert_eq!(store.rules().holding(&held).map(|rule| rule.id), Some(hold.id));
    assert!(store.rules().holding(&free).is_none());
    position(&store.commit(lift(&hold)).await.unwrap());
    assert!(store.rules().holding(&held).is_none());
    position(&issue(&*store, again).await);
}
