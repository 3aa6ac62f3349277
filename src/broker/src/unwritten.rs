//! Rules that are in effect in this process alone, since the store could not write them: their streams are told at once, and
//! whoever asked is told what that means.

use dayfly_core::rule::Rule;
use tokio::sync::watch;

/// What whoever revoked is told.
const IN_MEMORY_ONLY: &str = "THIS REVOCATION IS NOT ON DISK: the store cannot write now (its disk is full, or a write failed; \
                              the broker's log says which). It is in effect in this broker, which issues nothing until it is \
                              written. If the broker ends before that, it is lost: make room, and see by GetRevocation that \
                              in_memory_only is gone; after a restart before that, revoke again";

/// Rings when a rule is put in effect that has no position: the store's own bell is one of positions.
#[derive(Default)]
pub(crate) struct Unwritten(watch::Sender<()>);

impl Unwritten {
    pub(crate) fn ring(&self) {
        self.0.send_replace(());
    }

    pub(crate) fn bell(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }
}

/// What is to be said of a rule that is not on disk.
pub(crate) fn warning(rule: &Rule) -> Option<String> {
    (!rule.is_durable()).then(|| IN_MEMORY_ONLY.to_owned())
}
