use std::sync::Mutex;

use dayfly_core::change::LogHead;
use dayfly_core::checkpoint::{Checkpoint, Checkpoints};
use dayfly_core::ids::Position;
use dayfly_core::note::{SignedNote, VerifierKey};
use dayfly_core::ports::BoxFuture;

/// Checkpoints that are made at once, and not at all while they fail.
#[derive(Default)]
pub(crate) struct FakeCheckpoints {
    pub(crate) failing: Mutex<bool>,
    covered: Mutex<Position>,
}

impl FakeCheckpoints {
    /// Up to where the newest goes.
    pub(crate) fn covered(&self) -> Position {
        *self.covered.lock().unwrap()
    }
}

impl Checkpoints for FakeCheckpoints {
    fn cover(&self, position: Position) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if !*self.failing.lock().unwrap() {
                let mut covered = self.covered.lock().unwrap();
                *covered = position.max(*covered);
            }
        })
    }

    fn latest(&self) -> Option<SignedNote> {
        let head = LogHead { size: self.covered().number(), root: [7; 32] };
        let checkpoint = Checkpoint { origin: "dayfly.example/log".parse().unwrap(), head, store: None };
        Some(SignedNote { text: checkpoint.to_string(), signatures: Vec::new() })
    }

    fn keys(&self) -> Vec<VerifierKey> {
        vec![VerifierKey { name: "dayfly.example/log".parse().unwrap(), public: [7; 32] }]
    }
}
